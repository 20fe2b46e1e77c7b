// A client of the guest's counter that runs in the lab (see lab-client.ts), seen from the test.

import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { until } from '../../support/until.js';
import { ADDRESSES, childOf, type Lab } from './lab.js';

const CLIENT = fileURLToPath(new URL('./lab-client.js', import.meta.url));

/** A client that counts, and what it saw. */
export class Counter {
  readonly replies: { readonly value: number; readonly atMs: number }[] = [];
  /** What was wrong, once something was; then it counts no more. */
  wrong = '';

  readonly #process: ChildProcess;

  /** From the lab's client to the guest, or from elsewhere to where it is reached. */
  constructor(lab: Lab, from = 'client', address = ADDRESSES.guest, port = 7) {
    this.#process = lab.spawn(
      from,
      process.execPath,
      [CLIENT, 'count', address, String(port)],
      ['ignore', 'pipe', 'pipe'],
    );
    let rest = '';
    this.#process.stdout?.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const [value = NaN, atMs = NaN] = line.split(' ').map(Number);
        this.replies.push({ value, atMs });
      }
    });
    this.#process.stderr?.on('data', (chunk: Buffer) => (this.wrong += chunk.toString()));
  }

  async reach(count: number, limitMs: number): Promise<void> {
    await until(`${count} increments`, () => this.replies.length >= count || this.wrong !== '', limitMs);
    expect(this.wrong).to.equal('');
  }

  /** It hears and says no more. */
  end(): void {
    process.kill(childOf(this.#process), 'SIGKILL');
  }

  get longestSilenceMs(): number {
    let longest = 0;
    this.replies.forEach(({ atMs }, k) => {
      const before = this.replies[k - 1];
      if (before) longest = Math.max(longest, atMs - before.atMs);
    });
    return longest;
  }
}
