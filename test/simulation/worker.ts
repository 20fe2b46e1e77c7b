// Runs one share of the seeds in a thread of its own, and tells what came of them, some at a time.

import { parentPort, workerData } from 'node:worker_threads';
import { addTo, NOTHING, type Share, type ShareNews } from './shares.js';
import { run } from './run.js';

/** Told after so many. */
const TOLD_RUNS = 250;

function work({ seed, runs, step, plant }: Share): void {
  let figures = NOTHING;
  for (let index = 0; index < runs; index += step) {
    const result = run(seed + index, plant);
    figures = addTo(figures, result);
    const failed = result.violation === null ? null : result.seed;
    const isLast = failed !== null || index + step >= runs;
    if (!isLast && figures.runs < TOLD_RUNS) continue;
    parentPort?.postMessage({ figures, done: index + step, failed, isLast } satisfies ShareNews);
    figures = NOTHING;
    if (isLast) return;
  }
  if (runs <= 0)
    parentPort?.postMessage({ figures, done: 0, failed: null, isLast: true } satisfies ShareNews);
}

// Where it comes from says what it is: ours alone.
work(workerData as Share);
