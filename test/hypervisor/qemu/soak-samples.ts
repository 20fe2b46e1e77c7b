// What a pair of agents takes from the machine, sampled; and whether it grows.
//
//   warm-up │ first third │ second third │ last third        flat: the last third's middle is not above the first's
//
// Each process has its part (agent, QEMU, file server of the guest's memory); processes of one part are one sum.

import { readdirSync, readFileSync, statfsSync } from 'node:fs';
import { childrenOf } from '../../support/processes.js';
import { quantile } from '../../support/random.js';
import type { OneHost } from './one-host.js';

const PARTS = ['agent', 'QEMU', 'memory server', 'other'] as const;
const MIB = 2 ** 20;
const WARM_UP_SHARE = 0.15;
const SAMPLES_MIN = 30;

export type Unit = 'MiB' | '';

/** What growth is none, and what a number counts. */
interface Measure {
  readonly unit: Unit;
  readonly tolerance: number;
}

const MEASURES = {
  // V8 gives heap back when it likes, and buffers of a whole synchronisation come and go with each cut: that much the
  // middle of an agent's resident memory moves by itself. A leak of one checkpoint's pages per cut is far more.
  resident: { unit: 'MiB', tolerance: 48 },
  // Block jobs have threads that come and go; a connection that is being closed has a descriptor for a moment.
  descriptors: { unit: '', tolerance: 2 },
  threads: { unit: '', tolerance: 2 },
  processes: { unit: '', tolerance: 0 },
  // Guest memory that is touched late.
  'shared memory': { unit: 'MiB', tolerance: 8 },
} as const satisfies Record<string, Measure>;

type Kind = keyof typeof MEASURES;

export interface Row {
  readonly name: string;
  readonly unit: Unit;
  readonly first: number;
  readonly last: number;
  readonly most: number;
  readonly tolerance: number;
  readonly isFlat: boolean;
}

export class Samples {
  readonly #series = new Map<string, { readonly kind: Kind; readonly values: number[] }>();

  /** To be called when both sides are ready, so that all samples are of one state. */
  take({ primary, secondary, lab }: OneHost): void {
    for (const { side, pid } of [primary, secondary]) {
      const parts = partsOf(pid);
      this.#add('processes', side, [...parts.values()].flat().length);
      for (const [part, pids] of parts) {
        const sum = (measure: (pid: number) => number) =>
          pids.reduce((total, each) => total + measure(each), 0);
        this.#add('resident', `${side} ${part}`, sum(residentOf) / MIB);
        this.#add('descriptors', `${side} ${part}`, sum(descriptorsOf));
        this.#add('threads', `${side} ${part}`, sum(threadsOf));
      }
    }
    const { blocks, bfree, bsize } = statfsSync(`/proc/${lab.pid}/root/dev/shm`);
    this.#add('shared memory', '/dev/shm', ((blocks - bfree) * bsize) / MIB);
  }

  /** Too few samples say nothing of growth. */
  table(): Row[] {
    return [...this.#series].flatMap(([name, { kind, values }]) => {
      const warm = values.slice(Math.floor(values.length * WARM_UP_SHARE));
      if (warm.length < SAMPLES_MIN) return [];
      const third = Math.floor(warm.length / 3);
      const first = quantile(warm.slice(0, third), 0.5);
      const last = quantile(warm.slice(-third), 0.5);
      const { unit, tolerance } = MEASURES[kind];
      const most = Math.max(...warm);
      return [
        { name: `${kind}: ${name}`, unit, first, last, most, tolerance, isFlat: last - first <= tolerance },
      ];
    });
  }

  #add(kind: Kind, of: string, value: number): void {
    const name = `${kind} ${of}`;
    let series = this.#series.get(name);
    if (!series) this.#series.set(name, (series = { kind, values: [] }));
    series.values.push(value);
  }
}

export function printed(rows: readonly Row[]): string {
  const figure = (value: number, unit: Unit) => `${value.toFixed(unit === 'MiB' ? 1 : 0)} ${unit}`.trim();
  return rows
    .map(({ name, unit, first, last, most, tolerance, isFlat }) => {
      const figures = `${figure(first, unit)} -> ${figure(last, unit)} (most ${figure(most, unit)})`;
      return `${name}: ${figures}${isFlat ? '' : `, GROWS by more than ${figure(tolerance, unit)}`}`;
    })
    .join('\n');
}

function partsOf(agent: number): Map<(typeof PARTS)[number], number[]> {
  const parts = new Map<(typeof PARTS)[number], number[]>(PARTS.map((part) => [part, []]));
  const visit = (pid: number): void => {
    const argv = readOr('', () => readFileSync(`/proc/${pid}/cmdline`, 'latin1'));
    const part =
      pid === agent
        ? 'agent'
        : argv.includes('qemu-system')
          ? 'QEMU'
          : argv.includes('fuse')
            ? 'memory server'
            : 'other';
    parts.get(part)?.push(pid);
    for (const child of readOr([], () => childrenOf(pid))) visit(child);
  };
  visit(agent);
  return parts;
}

function residentOf(pid: number): number {
  const status = readOr('', () => readFileSync(`/proc/${pid}/status`, 'latin1'));
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
}

function threadsOf(pid: number): number {
  return readOr<string[]>([], () => readdirSync(`/proc/${pid}/task`)).length;
}

function descriptorsOf(pid: number): number {
  return readOr<string[]>([], () => readdirSync(`/proc/${pid}/fd`)).length;
}

/** A process may have ended since it was seen. */
function readOr<T>(gone: T, read: () => T): T {
  try {
    return read();
  } catch {
    return gone;
  }
}
