// What a test made and must end.

import { rm } from 'node:fs/promises';
import { temporaryDirectory } from './temporary.js';

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
    const made = await temporaryDirectory('romulus-test-');
    this.add(() => rm(made, { recursive: true, force: true }));
    return made;
  }
}
