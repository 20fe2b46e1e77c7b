// What a test made and must end.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

export class Cleanup {
  readonly #actions: (() => unknown)[] = [];

  add(action: () => unknown): void {
    this.#actions.push(action);
  }

  /** Last things first. */
  async run(): Promise<void> {
    for (let action = this.#actions.pop(); action; action = this.#actions.pop()) await action();
  }

  /** One that is removed in its turn. */
  async directory(): Promise<string> {
    const made = await mkdtemp(path.join(tmpdir(), 'romulus-test-'));
    this.add(() => rm(made, { recursive: true, force: true }));
    return made;
  }
}
