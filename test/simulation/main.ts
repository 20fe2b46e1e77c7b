// npm run simulate -- --runs N [--seed S] [--plant NAME]
//
// Exits 0 with a line of figures; or 1 with the story of the first seed that fails, which --runs 1 --seed S tells again.

import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { newSeed } from '../support/random.js';
import { PLANTS, isPlant, type Plant } from './plants.js';
import { run } from './run.js';
import { runAll, type Figures } from './shares.js';

interface Asked {
  readonly runs: number;
  readonly seed: number;
  readonly plant: Plant | null;
}

const USAGE = [
  'usage: npm run simulate -- --runs N [--seed S] [--plant NAME]',
  ...Object.entries(PLANTS).map(([name, what]) => `  ${name.padEnd(16)}  ${what}`),
].join('\n');

/** Null: it is not understood. */
function asked(): Asked | null {
  const options = { runs: { type: 'string' }, seed: { type: 'string' }, plant: { type: 'string' } } as const;
  try {
    const { values } = parseArgs({ options });
    const runs = Number(values.runs ?? 10_000);
    const seed = Number(values.seed ?? newSeed());
    const plant = values.plant ?? null;
    if (!Number.isSafeInteger(runs) || runs < 1 || !Number.isSafeInteger(seed) || seed < 0) return null;
    if (plant !== null && !isPlant(plant)) return null;
    return { runs, seed, plant };
  } catch {
    return null;
  }
}

function lineOf(figures: Figures, seed: number, elapsedMs: number): string {
  const { runs, simulatedMs, takeovers, resumed, switchovers, protections, forced, faults } = figures;
  const kinds = Object.entries(faults)
    .sort()
    .map(([kind, count]) => `${kind} ${count}`);
  return [
    `${runs} runs from seed ${seed}, no violation: ${Math.round(simulatedMs / 1000)} s simulated`,
    `${takeovers} takeovers (${switchovers} of them switchovers), ${protections} times protected, ${resumed} of them from what both had, ${forced} times lost by more than one failure`,
    `faults: ${kinds.join(', ')}`,
    `${(elapsedMs / 1000).toFixed(1)} s`,
  ].join('; ');
}

async function main(): Promise<number> {
  const what = asked();
  if (what === null) {
    console.error(USAGE);
    return 2;
  }
  const { runs, seed, plant } = what;
  const beganMs = performance.now();
  const { figures, failed } = await runAll(seed, runs, plant, Math.min(runs, availableParallelism()));
  if (failed === null) {
    console.log(lineOf(figures, seed, performance.now() - beganMs));
    return 0;
  }
  console.log(run(failed, plant, true).story.join('\n'));
  const planted = plant === null ? '' : ` --plant ${plant}`;
  console.log(`again: npm run simulate -- --runs 1 --seed ${failed}${planted}`);
  return 1;
}

process.exitCode = await main();
