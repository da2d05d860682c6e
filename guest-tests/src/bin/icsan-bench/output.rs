//! What the bench prints: a table for the terminal, and one for docs/performance.md.

use crate::machine::Setting;
use crate::row::{Against, Row};
use std::fmt::Write;

/// A number with its thousands set apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn boot_of<'a>(rows: &'a [Row], row: &Row) -> Option<&'a Row> {
    rows.iter()
        .find(|other| {
            other.workload == "boot"
                && (&other.qemu, &other.guest) == (&row.qemu, &row.guest)
                && (other.smp, other.mode) == (row.smp, row.mode)
        })
        .filter(|_| row.workload != "boot")
}

/// One row in words.
#[must_use]
pub fn text(row: &Row) -> String {
    let (ratio, least, greatest) = row.ratios();
    let digits = row.against.digits();
    let mut text = format!(
        "QEMU {}, {}, {} vCPU, {}, {}: median ratio {ratio:.digits$} ({least:.digits$} to {greatest:.digits$})\n",
        row.qemu,
        row.guest,
        row.smp,
        row.workload,
        row.mode.name()
    );
    let pairs: Vec<String> = row.pairs.iter().map(|pair| format!("{:.digits$}", pair.ratio())).collect();
    let _ = writeln!(text, "  pairs     {}", pairs.join(" "));
    let _ = writeln!(text, "  medians   user s  sys s  wall s  RSS MiB");
    for (label, figure) in
        [(row.against.label(), Row::plain as fn(&Row, fn(&crate::process::Usage) -> f64) -> f64), ("with", Row::plugin)]
    {
        let (user, sys, wall, rss) =
            (figure(row, |u| u.user), figure(row, |u| u.sys), figure(row, |u| u.wall), figure(row, |u| u.rss));
        let _ = writeln!(text, "  {label:9} {user:6.2} {sys:6.2} {wall:7.2} {rss:8.0}");
    }
    let _ = writeln!(
        text,
        "  {} blocks, {} epochs; ICSAN itself held {} MiB at most",
        grouped(row.work.blocks),
        grouped(row.work.epochs),
        row.work.held >> 20
    );
    if row.work.dropped > 0 {
        let _ = writeln!(text, "  slots ran out: {} times a piece of code was not watched", grouped(row.work.dropped));
    }
    if let Some(cpus) = row.disturbed() {
        let _ = writeln!(text, "  WARNING: the machine was not quiet: other processes used up to {cpus:.2} CPUs");
    }
    text
}

/// The table for docs/performance.md, with all that a reader must know to judge it.
#[must_use]
pub fn markdown(rows: &[Row], setting: &Setting, pairs: u16) -> String {
    let mut text = format!("Measured on {} with {pairs} pairs a row, {}.\n\n", setting.date, setting.shape);
    for (name, version) in &setting.versions {
        let _ = writeln!(text, "- {name}: {version}");
    }
    let mut warnings: Vec<String> = setting.warning.iter().map(|warning| format!("**Not quiet:** {warning}")).collect();
    for row in rows {
        let of = format!("{} / {} / {} / {} / {}", row.qemu, row.guest, row.smp, row.workload, row.mode.name());
        if let Some(cpus) = row.disturbed() {
            warnings.push(format!("**Not quiet:** {of}: other processes used up to {cpus:.2} CPUs"));
        }
        if row.work.dropped > 0 {
            warnings.push(format!(
                "{of}: slots ran out, {} times a piece of code was not watched",
                grouped(row.work.dropped)
            ));
        }
    }
    match warnings.is_empty() {
        true => text.push_str("- The machine was quiet throughout.\n"),
        false => warnings.iter().for_each(|warning| _ = writeln!(text, "- {warning}")),
    }
    let against = rows.first().map_or(Against::None, |row| row.against);
    let _ = write!(text, "\n| QEMU | guest | vCPUs | workload | mode | user s {} ", against.label());
    text.push_str("| with | ratio, median (min–max) | less the boot | sys s | wall s | RSS MiB | ICSAN, MiB | blocks | epochs |\n");
    text.push_str("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for row in rows {
        let (ratio, least, greatest) = row.ratios();
        let digits = row.against.digits();
        let alone = boot_of(rows, row).map_or_else(|| "–".to_owned(), |boot| format!("{:.2}", row.ratio_without(boot)));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {:.2} | {:.2} | **{ratio:.digits$}** ({least:.digits$}–{greatest:.digits$}) | {alone} | {:.2} → {:.2} | {:.2} → {:.2} | {:.0} → {:.0} | {} | {} | {} |",
            row.qemu,
            row.guest,
            row.smp,
            row.workload,
            row.mode.name(),
            row.plain(|usage| usage.user),
            row.plugin(|usage| usage.user),
            row.plain(|usage| usage.sys),
            row.plugin(|usage| usage.sys),
            row.plain(|usage| usage.wall),
            row.plugin(|usage| usage.wall),
            row.plain(|usage| usage.rss),
            row.plugin(|usage| usage.rss),
            row.work.held >> 20,
            grouped(row.work.blocks),
            grouped(row.work.epochs),
        );
    }
    text.push_str(&side_by_side(rows));
    text
}

/// If several guests were measured: the ratios alone, a column for each guest; in brackets less the boot.
fn side_by_side(rows: &[Row]) -> String {
    let mut guests: Vec<&str> = Vec::new();
    for row in rows {
        if !guests.contains(&row.guest.as_str()) {
            guests.push(&row.guest);
        }
    }
    if guests.len() < 2 {
        return String::new();
    }
    let mut text = format!("\n| QEMU | vCPUs | workload | mode | {} |\n", guests.join(" | "));
    let _ = writeln!(text, "|{}", " --- |".repeat(4 + guests.len()));
    let same = |one: &Row, other: &Row| {
        (&one.qemu, &one.workload) == (&other.qemu, &other.workload) && (one.smp, one.mode) == (other.smp, other.mode)
    };
    for (at, row) in rows.iter().enumerate() {
        if rows[..at].iter().any(|earlier| same(earlier, row)) {
            continue;
        }
        let _ = write!(text, "| {} | {} | {} | {} |", row.qemu, row.smp, row.workload, row.mode.name());
        for guest in &guests {
            let cell = rows.iter().find(|other| same(other, row) && other.guest == *guest).map(|other| {
                let alone = boot_of(rows, other).map(|boot| format!(" ({:.2})", other.ratio_without(boot)));
                format!("**{:.2}**{}", other.ratios().0, alone.unwrap_or_default())
            });
            let _ = write!(text, " {} |", cell.as_deref().unwrap_or("–"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::row;

    #[test]
    fn thousands() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn the_table_says_when_it_was_not_quiet() {
        let mut rows = vec![row("boot", 4.0, 1.0), row("sort", 14.0, 0.84)];
        let setting = Setting {
            date: "2026-01-02".into(),
            shape: "2 CPUs".into(),
            versions: vec![("QEMU".into(), "x".into())],
            warning: None,
        };
        let quiet = markdown(&rows, &setting, 2);
        assert!(
            quiet.contains("quiet throughout")
                && quiet.contains("| 10.0 | x86_64 max | 1 | boot | full | 4.00 | 5.20 | **1.30** (1.10–1.50) | – |"),
            "{quiet}"
        );
        assert!(quiet.contains("| sort | full | 14.00 | 15.29 | **1.09** (0.92–1.26) | 1.01 |"), "{quiet}");
        rows[0].pairs[0].plain.others = 1.0;
        let noisy = markdown(&rows, &setting, 2);
        assert!(
            noisy.contains("**Not quiet:** 10.0 / x86_64 max / 1 / boot / full") && text(&rows[0]).contains("WARNING"),
            "{noisy}"
        );
    }

    #[test]
    fn two_builds_are_compared_to_three_digits() {
        let setting =
            Setting { date: "2026-01-02".into(), shape: "2 CPUs".into(), versions: Vec::new(), warning: None };
        let rows = [Row { against: Against::Base, ..row("boot", 4.0, 0.7) }];
        let table = markdown(&rows, &setting, 2);
        assert!(table.contains("| user s base | with |") && table.contains("**0.910** (0.770–1.050)"), "{table}");
        assert!(text(&rows[0]).contains("median ratio 0.910") && text(&rows[0]).contains("  base "));
    }

    #[test]
    fn several_guests_are_told_side_by_side() {
        let one = [row("boot", 4.0, 1.0), row("sort", 14.0, 0.84)];
        assert_eq!(side_by_side(&one), "", "one guest has nothing beside it");
        let other = |row: &Row, factor: f64| {
            let mut row = Row { guest: "aarch64 cortex-a72".into(), ..row.clone() };
            row.pairs.iter_mut().for_each(|pair| pair.plugin.user *= factor);
            row
        };
        let rows = [one[0].clone(), other(&one[0], 2.0), one[1].clone()];
        let table = side_by_side(&rows);
        let lines: Vec<&str> = table.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "| QEMU | vCPUs | workload | mode | x86_64 max | aarch64 cortex-a72 |",
                "| --- | --- | --- | --- | --- | --- |",
                "| 10.0 | 1 | boot | full | **1.30** | **2.60** |",
                "| 10.0 | 1 | sort | full | **1.09** (1.01) | – |",
            ]
        );
        let rows = [one[0].clone(), other(&one[0], 2.0), other(&one[1], 1.0)];
        let less_its_own_boot = "| 10.0 | 1 | sort | full | – | **1.09** (0.49) |";
        assert!(side_by_side(&rows).contains(less_its_own_boot), "{}", side_by_side(&rows));
    }
}
