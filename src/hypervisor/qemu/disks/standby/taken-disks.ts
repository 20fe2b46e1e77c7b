// Images that a domain runs on since it was taken over. What was written to them before is made durable, and their records
// go: they are of no point any more.
//
//   taken ─▶ records removed ─▶ the domain runs ┄▶ durably so, images flushed, nothing staged left
//                 └ fails: told, and tried again ◀────────┘
//
// The domain does not wait for a disk that does not let go of a record: that says a point of the stream that has ended with
// the takeover. Who would believe it is the owner of that stream, who knows what was written since; and that life of the
// domain is over, or nobody could have taken it over. (A history begins anew with each: see primary/shared-disks.ts.)

import { rm } from 'node:fs/promises';
import { Subject } from 'rxjs';
import { asError } from '../../../../errors.js';
import type { LocalDisk } from '../drives.js';
import { syncFile, type Durability } from './durability.js';
import { stagedOf } from './images.js';
import { recordOf } from './record.js';

export class TakenDisks {
  /** What is not done yet, and why; once for each reason. Completes when all is done. */
  readonly warnings$ = new Subject<string>();
  readonly #disks: readonly LocalDisk[];
  readonly #durability: Durability;
  readonly #againMs: number;
  #timer: NodeJS.Timeout | null = null;
  #isOver = false;
  #told: string | null = null;

  constructor(
    disks: readonly LocalDisk[],
    durability: Durability,
    { againMs }: { readonly againMs: number },
  ) {
    this.#disks = disks;
    this.#durability = durability;
    this.#againMs = againMs;
  }

  /** Resolves when the domain may run. Does not fail. */
  async begin(): Promise<void> {
    // From here on none is written.
    void this.#settle();
    for (const { file } of this.#disks) await rm(recordOf(file), { force: true }).catch(() => undefined); // see #settle
  }

  /** Nobody needs them any more. */
  end(): void {
    this.#isOver = true;
    if (this.#timer) clearTimeout(this.#timer);
    this.#close();
  }

  async #settle(): Promise<void> {
    try {
      await this.#durability.breaks();
      for (const { file } of this.#disks) {
        await syncFile(file);
        await rm(stagedOf(file), { force: true });
      }
      this.#close();
    } catch (thrown) {
      const { message } = asError(thrown);
      if (message !== this.#told) {
        this.warnings$.next(`not done yet with the disks that were taken over, tried again: ${message}`);
      }
      this.#told = message;
      if (!this.#isOver) this.#timer = setTimeout(() => void this.#settle(), this.#againMs);
    }
  }

  #close(): void {
    this.#durability.close();
    this.warnings$.complete();
  }
}
