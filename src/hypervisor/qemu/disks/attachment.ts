// One disk of a guest, as far as what we have of it changes: whether its writes come to us, and what is known of them.

import { asError } from '../../../errors.js';
import { withinAwake } from '../../../flow/awake.js';
import { HypervisorError, badConfiguration, failed } from '../../port.js';
import type { QmpClient } from '../monitor/qmp.js';
import type { Flushes } from './durability.js';
import type { FoundDisk } from './find.js';
import { Mirror } from './mirror.js';
import { NbdError } from './nbd/error.js';

const LEAVE_MS = 10_000;

export class Attachment {
  readonly mirror: Mirror;
  /** All writes since attach() or rest() are in the map of its export. */
  isKnown = true;
  /** Why its writes do not come to us; null: they do, or never did, or do not by our will. */
  #reason: string | null = null;
  #isAttached = false;
  /** QEMU may have something of its mirror. */
  #isBegun = false;
  #lost = new AbortController();
  /** Settles when QEMU has left its export; null: it has. */
  #left: Promise<void> | null = null;
  #leave: () => void = () => undefined;

  /** `lose`: called when the mirror fails. */
  constructor(qmp: QmpClient, disk: FoundDisk, index: number, lose: (reason: string) => void) {
    this.mirror = new Mirror(qmp, disk, index, lose);
  }

  get disk(): FoundDisk {
    return this.mirror.disk;
  }

  get isAttached(): boolean {
    return this.#isAttached;
  }

  get isBegun(): boolean {
    return this.#isBegun;
  }

  /** Aborted with what lostError() is, when it is lost, or left. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** In a pause. `path`: of the socket of the exports. @throws HypervisorError */
  async begin(path: string): Promise<void> {
    const left = this.#left;
    await this.mirror.end(); // what is left of one that was lost
    const late = () =>
      new HypervisorError('HUNG', 'QEMU does not leave the export of a disk', { timeoutMs: LEAVE_MS });
    if (left !== null) await withinAwake(LEAVE_MS, left, late); // an export has one client
    this.#lost = new AbortController();
    this.#isBegun = true;
    await this.mirror.begin(path);
    this.#left = new Promise((resolve) => (this.#leave = resolve));
    this.#isAttached = true;
    this.#reason = null;
  }

  /** In a pause. @throws HypervisorError */
  async end(): Promise<void> {
    this.leave();
    await this.mirror.end();
    this.#isBegun = false;
  }

  /** It is given up, by our will. */
  leave(): void {
    this.#isAttached = false;
    this.isKnown = false;
    this.#lost.abort(lostError(this));
  }

  /** QEMU has gone from its export. */
  hasLeft(): void {
    this.#leave();
    this.#left = null;
  }

  /** False: it is nothing new. */
  lose(reason: string): boolean {
    if (!this.#isAttached) return false;
    this.#reason = reason;
    this.leave();
    return true;
  }

  get reason(): string | null {
    return this.#reason;
  }
}

/** In a pause. `flushes`: are switched on before; if that fails, they end all the same. @throws HypervisorError */
export async function endAll(
  attachments: readonly Pick<Attachment, 'end'>[],
  flushes?: Pick<Flushes, 'switchOn'>,
): Promise<void> {
  try {
    await flushes?.switchOn();
  } finally {
    for (const attachment of attachments) await attachment.end();
  }
}

export function lostError({ disk, reason }: Attachment): HypervisorError {
  const { id } = disk;
  const why = reason ?? 'it is not mirrored any more';
  return failed(`what is written to the disk ${id} is not known: ${why}`, { disk: id, reason: why });
}

/** In the port's words. */
export function translated(thrown: unknown): Error {
  const error = asError(thrown);
  if (!(error instanceof NbdError)) return error;
  const { code, message, facts } = error;
  if (code === 'BAD_PATH') return badConfiguration(message, facts, error);
  if (code === 'HUNG') return new HypervisorError('HUNG', message, facts, { cause: error });
  return failed(message, facts, error);
}
