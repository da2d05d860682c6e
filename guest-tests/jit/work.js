// Two threads whose call sites see one shape, then more, and which make functions as they go. Argument: rounds.
const { Worker, isMainThread } = require('worker_threads');

function Plus(n) { this.n = n; }
Plus.prototype.apply = function (x) { return (x + this.n) | 0; };
function Flip(n) { this.n = n; this.more = 1; }
Flip.prototype.apply = function (x) { return x ^ this.n; };

function repeat(step, times) {
	let value = 1;
	for (let i = 0; i < times; i++) value = step.apply(value);
	return value;
}

function work(rounds) {
	let sum = 0;
	for (let round = 0; round < rounds; round++) {
		const steps = [new Plus(round), new Flip(round), { apply: (x) => (x + round) | 0 }];
		for (let i = 0; i < 60; i++) sum = (sum + repeat(steps[i % (1 + round % 3)], 5000)) | 0;
		const made = new Function('x', `return x * ${round} + 1`);
		for (let i = 0; i < 4000; i++) sum = (sum + made(i)) | 0;
	}
	return sum;
}

const rounds = Number(process.argv[2]);
if (isMainThread) {
	const other = new Worker(__filename, { argv: [String(rounds)] });
	const sum = work(rounds);
	other.on('exit', () => console.log('WORK DONE', sum));
} else {
	work(rounds);
}
