// What the guest has written to each disk, over all threads that have served it: each of them counts from 0.

import type { DiskFigures } from '../../port-disks.js';
import type { ExportFigures } from './nbd/export.js';

type Written = Omit<DiskFigures, 'lost'>;

const NOTHING: Written = { requests: 0, writtenBytes: 0, journalBytes: 0 };

export class WrittenFigures {
  readonly #before = new Map<string, Written>();

  /** `now`: of the thread that serves it; none if there is none. */
  of(disk: string, now: readonly ExportFigures[]): Written {
    const before = this.#before.get(disk) ?? NOTHING;
    const { requests, writtenBytes, journalBytes } = now.find(({ name }) => name === disk) ?? NOTHING;
    return {
      requests: before.requests + requests,
      writtenBytes: before.writtenBytes + writtenBytes,
      journalBytes,
    };
  }

  /** The thread has ended: its last figures. */
  ended(last: readonly ExportFigures[]): void {
    for (const { name } of last) this.#before.set(name, { ...this.of(name, last), journalBytes: 0 });
  }
}
