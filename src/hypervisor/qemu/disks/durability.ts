// What a disk's flushes are worth while it is protected. QEMU flushes every disk in each `stop`, which is most of what a
// pause costs under a guest that writes (p99 of `stop` 69 to 125 ms; 5.5 without). What a guest has flushed is on the
// secondary, too, so it is lost only if both hosts lose their power: whoever accepts that may have his pauses shorter.
//
//   strict    flushes are what they are (the default)
//   relaxed   from keep() to rest() they reach no disk (cache.no-flush); at the end of that all is flushed once
//
// A QEMU that does not end with us is left as it was, also if we are killed: each node is marked (by a bitmap that records
// nothing) before its flushes are switched off, and its guard, or else whoever attaches next, switches on what is marked.
//
// It is switched by a command for people, qemu-io's reopen: QMP's would have to be told all other options of a node.

import { isObject, type JsonObject } from '../monitor/qmp-parser.js';
import { QmpError, type QmpClient } from '../monitor/qmp.js';
import { failed } from '../../port.js';
import { listOf } from './answers.js';
import type { FoundDisk } from './find.js';

const MARK = 'romulus-relaxed';
/** The fewest bits for it. */
const MARK_GRANULARITY = 2 ** 31;

export interface FlushesOptions {
  readonly qmp: QmpClient;
  readonly disks: readonly Pick<FoundDisk, 'id' | 'node'>[];
  /** The ids of those whose flushes may be switched off. */
  readonly relaxed?: readonly string[] | undefined;
  /** The path of the monitor of a QEMU that does not end with us; null, or left out: it does. */
  readonly monitor?: string | null | undefined;
}

/** Flushes of some disks' nodes, which are on in the beginning. */
export class Flushes {
  readonly #qmp: QmpClient;
  readonly #outlivesUs: boolean;
  /** What the guest's devices are plugged into. */
  readonly #roots: readonly string[];
  /** Those that we have switched off. */
  #off: readonly string[] = [];

  constructor({ qmp, disks, relaxed = [], monitor = null }: FlushesOptions) {
    this.#qmp = qmp;
    this.#outlivesUs = monitor !== null;
    this.#roots = disks.filter(({ id }) => relaxed.includes(id)).map(({ node }) => node);
  }

  get areOff(): boolean {
    return this.#off.length > 0;
  }

  /** In a pause. Done already: nothing happens. @throws HypervisorError */
  async switchOff(): Promise<void> {
    if (this.areOff || this.#roots.length === 0) return;
    const nodes = await listOf(this.#qmp, 'query-named-block-nodes', { flat: true });
    const written = await this.#written();
    this.#off = nodes.filter((node) => written.has(nameOf(node)) && !isOff(node)).map(nameOf);
    for (const node of nodes) {
      if (!this.#off.includes(nameOf(node))) continue;
      if (this.#outlivesUs) await mark(this.#qmp, nameOf(node));
      await reopen(this.#qmp, node, 'on');
    }
  }

  /** In a pause. What was written is on the disk then. Done already: nothing happens. @throws HypervisorError */
  async switchOn(): Promise<void> {
    if (!this.areOff) return;
    await switchOn(this.#qmp, ({ 'node-name': name }) => this.#off.includes(String(name)), this.#roots);
    this.#off = [];
  }

  /** The nodes through which these disks are written to, down to their files. */
  async #written(): Promise<ReadonlySet<string>> {
    const graph = await this.#qmp.execute('x-debug-query-block-graph');
    const { nodes, edges } = isObject(graph) ? graph : {};
    if (!Array.isArray(nodes) || !Array.isArray(edges)) throw failed('QEMU does not show its block nodes');
    const byId = new Map(nodes.filter(isObject).map(({ id, name }) => [id, String(name)]));
    const written = new Set(this.#roots);
    const writing = edges
      .filter(isObject)
      .filter(({ perm }) => Array.isArray(perm) && perm.includes('write'));
    for (let before = 0; before < written.size;) {
      before = written.size;
      for (const { parent, child } of writing) {
        const name = byId.get(child);
        if (written.has(byId.get(parent) ?? '') && name !== undefined) written.add(name);
      }
    }
    return written;
  }
}

/** In a pause: what we, or an agent before us, have left switched off. @throws HypervisorError */
export async function switchOnMarked(qmp: QmpClient): Promise<void> {
  const marked = (await listOf(qmp, 'query-named-block-nodes', { flat: true })).filter(isMarked).map(nameOf);
  if (marked.length > 0) await switchOn(qmp, isMarked, marked);
}

/** Whether there is anything to be switched on. @throws HypervisorError */
export async function areMarked(qmp: QmpClient): Promise<boolean> {
  return (await listOf(qmp, 'query-named-block-nodes', { flat: true })).some(isMarked);
}

/** A mark goes when all is flushed. */
async function switchOn(
  qmp: QmpClient,
  isOff: (node: JsonObject) => boolean,
  flushed: readonly string[],
): Promise<void> {
  const nodes = (await listOf(qmp, 'query-named-block-nodes', { flat: true })).filter(isOff);
  for (const node of nodes) await reopen(qmp, node, 'off');
  for (const node of flushed) await say(qmp, node, 'flush');
  for (const node of nodes.filter(isMarked)) {
    await qmp.execute('block-dirty-bitmap-remove', { node: nameOf(node), name: MARK });
  }
}

/** It may be there from an attempt that failed. */
async function mark(qmp: QmpClient, node: string): Promise<void> {
  const bitmap = { name: MARK, granularity: MARK_GRANULARITY, disabled: true };
  try {
    await qmp.execute('block-dirty-bitmap-add', { node, ...bitmap });
  } catch (error) {
    if (!(error instanceof QmpError) || !error.description.includes('already exists')) throw error;
  }
}

/** What it is not told is as it was; but for this one, which -drive keeps elsewhere. */
async function reopen(qmp: QmpClient, node: JsonObject, noFlush: 'on' | 'off'): Promise<void> {
  const zeroes = String(node['detect_zeroes']);
  await say(qmp, nameOf(node), `reopen -o cache.no-flush=${noFlush},detect-zeroes=${zeroes}`);
}

async function say(qmp: QmpClient, node: string, command: string): Promise<void> {
  const said = (await qmp.human(`qemu-io ${node} "${command}"`)).trim();
  if (said !== '') throw failed(`QEMU does not ${command} the node ${node}: ${said}`, { node, said });
}

function isMarked({ 'dirty-bitmaps': bitmaps }: JsonObject): boolean {
  return Array.isArray(bitmaps) && bitmaps.some((bitmap) => isObject(bitmap) && bitmap['name'] === MARK);
}

function nameOf(node: JsonObject): string {
  return String(node['node-name']);
}

function isOff({ cache }: JsonObject): boolean {
  return isObject(cache) && cache['no-flush'] === true;
}
