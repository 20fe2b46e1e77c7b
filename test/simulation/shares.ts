// Many runs: their figures, and their sharing between threads. Whatever the number of threads, the first seed that fails is
// the same.

import { Worker } from 'node:worker_threads';
import type { FaultKind } from './faults.js';
import type { Plant } from './plants.js';
import type { RunResult } from './run.js';

export interface Figures {
  readonly runs: number;
  readonly simulatedMs: number;
  readonly takeovers: number;
  readonly resumed: number;
  readonly switchovers: number;
  /** Times that the domain became protected after it was not. */
  readonly protections: number;
  /** Times that it was lost with all that had it, and an operator started it. */
  readonly forced: number;
  readonly faults: Readonly<Partial<Record<FaultKind, number>>>;
}

export const NOTHING: Figures = {
  runs: 0,
  simulatedMs: 0,
  takeovers: 0,
  resumed: 0,
  switchovers: 0,
  protections: 0,
  forced: 0,
  faults: {},
};

/** The seeds `seed`, `seed + step`, … of `runs`. */
export interface Share {
  readonly seed: number;
  readonly runs: number;
  readonly step: number;
  readonly plant: Plant | null;
}

export interface ShareNews {
  readonly figures: Figures;
  /** So many of the share's seeds are behind it, from its first seed. */
  readonly done: number;
  readonly failed: number | null;
  readonly isLast: boolean;
}

export function addTo(sum: Figures, more: Omit<RunResult, 'runs'> | Figures): Figures {
  const faults: Partial<Record<FaultKind, number>> = { ...sum.faults };
  for (const [kind, count] of Object.entries(more.faults) as [FaultKind, number][])
    faults[kind] = (faults[kind] ?? 0) + count;
  return {
    runs: sum.runs + ('runs' in more ? more.runs : 1),
    simulatedMs: sum.simulatedMs + more.simulatedMs,
    takeovers: sum.takeovers + more.takeovers,
    resumed: sum.resumed + more.resumed,
    switchovers: sum.switchovers + more.switchovers,
    protections: sum.protections + more.protections,
    forced: sum.forced + more.forced,
    faults,
  };
}

/** `failed`: the first seed that does; null: none. Rejects if a thread fails. */
export async function runAll(
  seed: number,
  runs: number,
  plant: Plant | null,
  threads: number,
): Promise<{ readonly figures: Figures; readonly failed: number | null }> {
  let figures = NOTHING;
  let failed: number | null = null;
  const workers = new Map<Worker, number>();
  const work = (index: number): Promise<void> =>
    new Promise((resolve, reject) => {
      const share: Share = { seed: seed + index, runs: runs - index, step: threads, plant };
      const worker = new Worker(new URL('./worker.js', import.meta.url), { workerData: share });
      workers.set(worker, share.seed);
      // Resolves with the thread's end, whoever ends it.
      worker.on('error', reject);
      worker.on('exit', () => resolve());
      worker.on('message', (news: ShareNews) => {
        figures = addTo(figures, news.figures);
        if (news.failed !== null && (failed === null || news.failed < failed)) failed = news.failed;
        workers.set(worker, share.seed + news.done);
        // Who has come further than the first that failed has no more to say.
        for (const [other, next] of workers) if (failed !== null && next > failed) void other.terminate();
      });
    });
  await Promise.all(Array.from({ length: threads }, (_, index) => work(index)));
  return { figures, failed };
}
