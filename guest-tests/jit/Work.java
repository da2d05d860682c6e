import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.ArrayList;
import java.util.List;

/** Two threads whose call sites see one class, then two, then four: inline caches are set, changed and given up while both run. Argument: rounds. */
public class Work {
    interface Step { long apply(long x); }

    static final class Triple implements Step { public long apply(long x) { return 3 * x + 1; } }
    static final class Flip implements Step { public long apply(long x) { return x ^ 0x5a5a; } }
    static final class Turn implements Step { public long apply(long x) { return Long.rotateLeft(x, 9); } }
    static final class Add implements Step { public long apply(long x) { return x + 11; } }

    static long repeat(Step step, int times) {
        long value = 1;
        for (int i = 0; i < times; i++) value = step.apply(value);
        return value;
    }

    public static void main(String[] arguments) throws Exception {
        int rounds = Integer.parseInt(arguments[0]);
        Step[] all = {new Triple(), new Flip(), new Turn(), new Add()};
        ExecutorService threads = Executors.newFixedThreadPool(2);
        long sum = 0;
        for (int round = 0; round < rounds; round++) {
            for (int kinds = 1; kinds <= all.length; kinds *= 2) {
                List<Future<Long>> parts = new ArrayList<>();
                for (int thread = 0; thread < 2; thread++) {
                    final int shift = thread, of = kinds;
                    Callable<Long> part = () -> {
                        long value = 0;
                        for (int i = 0; i < 20; i++) value += repeat(all[(i + shift) % of], 20_000);
                        return value;
                    };
                    parts.add(threads.submit(part));
                }
                for (Future<Long> part : parts) sum += part.get();
            }
            StringBuilder text = new StringBuilder();
            for (int i = 0; i < 1500; i++) text.append(String.format("%x;", i * round));
            sum += text.toString().hashCode();
        }
        threads.shutdown();
        System.out.println("WORK DONE " + sum);
    }
}
