// What a disk's flushes are worth while it is protected. QEMU flushes every disk in each `stop`, which is most of what a
// pause costs under a guest that writes (p99 of `stop` 69 to 125 ms; 5.5 without). What a guest has flushed is on the
// secondary, too, so it is lost only if both hosts lose their power: whoever accepts that may have his pauses shorter.
//
//   strict    flushes are what they are (the default)
//   relaxed   from keep() to rest() they reach no disk (cache.no-flush); at the end of that all is flushed once
//
// It is switched by a command for people, qemu-io's reopen: QMP's would have to be told all other options of a node.

import { isObject, type JsonObject } from '../monitor/qmp-parser.js';
import type { QmpClient } from '../monitor/qmp.js';
import { failed } from '../../port.js';
import { listOf } from './answers.js';

/** Flushes of some disks' nodes, which are on in the beginning. */
export class Flushes {
  readonly #qmp: QmpClient;
  readonly #roots: readonly string[];
  /** Those that we have switched off. */
  #off: readonly string[] = [];

  /** `roots`: what the guest's devices are plugged into. */
  constructor(qmp: QmpClient, roots: readonly string[]) {
    this.#qmp = qmp;
    this.#roots = roots;
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
    for (const node of nodes) if (this.#off.includes(nameOf(node))) await this.#reopen(node, 'on');
  }

  /** In a pause. What was written is on the disk then. Done already: nothing happens. @throws HypervisorError */
  async switchOn(): Promise<void> {
    const nodes = await listOf(this.#qmp, 'query-named-block-nodes', { flat: true });
    for (const node of nodes) if (this.#off.includes(nameOf(node))) await this.#reopen(node, 'off');
    if (this.areOff) for (const root of this.#roots) await this.#say(root, 'flush');
    this.#off = [];
  }

  /** What it is not told is as it was; but for this one, which -drive keeps elsewhere. */
  async #reopen(node: JsonObject, noFlush: 'on' | 'off'): Promise<void> {
    const zeroes = String(node['detect_zeroes']);
    await this.#say(nameOf(node), `reopen -o cache.no-flush=${noFlush},detect-zeroes=${zeroes}`);
  }

  async #say(node: string, command: string): Promise<void> {
    const said = (await this.#qmp.human(`qemu-io ${node} "${command}"`)).trim();
    if (said !== '') throw failed(`QEMU does not ${command} the node ${node}: ${said}`, { node, said });
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

function nameOf(node: JsonObject): string {
  return String(node['node-name']);
}

function isOff({ cache }: JsonObject): boolean {
  return isObject(cache) && cache['no-flush'] === true;
}
