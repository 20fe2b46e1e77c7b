// The mirror of one disk into its export, as a job of QEMU's. It is begun and ended while the guest stands still: QEMU 7.2
// spoils its memory where a job is cancelled under a guest that writes, and dies where one is begun on a disk with an
// iothread.
//
//   begin (in a pause)  blockdev-add target, blockdev-mirror ── whenReady ──▶ BLOCK_JOB_READY: each write is here, too
//   end   (in a pause)  block-job-cancel, force ── BLOCK_JOB_CANCELLED ── blockdev-del target
//
// There is no reconnect-delay: with it QEMU's monitor hangs when we are gone. On an error (we are gone, or say so) the job
// halts, and the guest goes on; what it writes then is not here, and each write tells of it by a BLOCK_JOB_ERROR. It must
// not end by itself, as it would with 'report': that is an end under a guest that writes, too, and 7.2 frees what the
// writes under way still need (heap corruption in 2 of 60 kills of an agent on a busy machine).

import { failed } from '../../port.js';
import { QmpError, type QmpClient, type QmpEvent } from '../monitor/qmp.js';
import { isTaken } from './answers.js';
import { ExpectedEvent } from './expected.js';
import { refused, type FoundDisk } from './find.js';
import { mirrorNames, type MirrorNames } from './names.js';

/** Does work while the guest stands still. */
export type InPause = <T>(work: () => Promise<T>) => Promise<T>;

export class Mirror {
  readonly disk: FoundDisk;
  readonly #qmp: QmpClient;
  readonly #names: MirrorNames;
  readonly #tell: (reason: string) => void;
  /** A job is there that is not to end. */
  #isBegun = false;
  #ready: ExpectedEvent | null = null;

  /** `lost`: called with the reason when what the guest writes does not come here any more. */
  constructor(qmp: QmpClient, disk: FoundDisk, index: number, lost: (reason: string) => void) {
    this.#qmp = qmp;
    this.disk = disk;
    this.#names = mirrorNames(index);
    this.#tell = lost;
  }

  hear({ name, data }: QmpEvent): void {
    switch (name) {
      case 'BLOCK_JOB_ERROR':
        if (this.#isOurs(data['device'])) this.#lost(failureOf(data));
        return;
      case 'BLOCK_JOB_COMPLETED':
      case 'BLOCK_JOB_CANCELLED':
        if (this.#isOurs(data['device'])) this.#lost(`its mirror has ended: ${endOf(data['error'])}`);
        return;
      case 'BLOCK_IO_ERROR':
        // What a write that failed has left on the disk nobody knows.
        if (data['operation'] === 'write' && this.#isOn(data)) this.#lost('a write to it has failed');
    }
  }

  /**
   * In a pause. `path`: of the socket of our exports.
   * @throws HypervisorError BAD_CONFIGURATION if QEMU refuses; FAILED, DOMAIN_GONE
   */
  async begin(path: string): Promise<void> {
    const { target, filter, job } = this.#names;
    const server = { type: 'unix', path };
    await this.#qmp.execute('blockdev-add', {
      ...{ driver: 'nbd', 'node-name': target, server, export: this.disk.id },
    });
    this.#isBegun = true;
    this.#ready = expected(this.#qmp, job, 'is ready', [
      'BLOCK_JOB_READY',
      'BLOCK_JOB_ERROR',
      'BLOCK_JOB_COMPLETED',
    ]);
    try {
      await this.#qmp.execute('blockdev-mirror', {
        ...{ 'job-id': job, device: this.disk.node, target, 'filter-node-name': filter },
        ...{ sync: 'none', 'copy-mode': 'write-blocking' },
        ...{ 'on-target-error': 'stop', 'on-source-error': 'stop' },
      });
    } catch (error) {
      this.#isBegun = false;
      this.#ready.drop();
      if (error instanceof QmpError) throw refused(this.disk.id, `QEMU refuses: ${error.description}`);
      throw error;
    }
  }

  /** @throws HypervisorError FAILED, DOMAIN_GONE */
  async whenReady(): Promise<void> {
    const event = await this.#ready?.come();
    if (event?.name === 'BLOCK_JOB_READY' && this.#isBegun) return;
    const { id } = this.disk;
    const reason = event?.name === 'BLOCK_JOB_ERROR' ? failureOf(event.data) : endOf(event?.data['error']);
    throw failed(`the disk ${id} is not mirrored: ${reason}`, { disk: id, reason });
  }

  /** In a pause. Whatever there is of it, also what somebody before us has left. @throws HypervisorError */
  async end(): Promise<void> {
    this.#isBegun = false;
    this.#ready?.drop();
    await endMirror(this.#qmp, this.#names);
  }

  #lost(reason: string): void {
    if (!this.#isBegun) return;
    this.#isBegun = false;
    this.#tell(reason);
  }

  #isOurs(job: unknown): boolean {
    return job === this.#names.job;
  }

  /** The error's `device` is that of a -drive, its node what the guest's device sees. */
  #isOn({ device, 'node-name': node }: QmpEvent['data']): boolean {
    return (
      node === this.#names.filter || node === this.disk.node || (device !== '' && device === this.disk.drive)
    );
  }
}

/** @throws HypervisorError */
export async function endMirror(qmp: QmpClient, { job, target }: MirrorNames): Promise<void> {
  const ended = expected(qmp, job, 'has ended', ['BLOCK_JOB_CANCELLED', 'BLOCK_JOB_COMPLETED']);
  try {
    if (await isTaken(qmp.execute('block-job-cancel', { device: job, force: true }))) await ended.come();
  } finally {
    ended.drop();
  }
  await isTaken(qmp.execute('blockdev-del', { 'node-name': target }));
}

function expected(qmp: QmpClient, job: string, what: string, names: readonly string[]): ExpectedEvent {
  return new ExpectedEvent(
    qmp,
    `its job ${job} ${what}`,
    ({ name, data }) => names.includes(name) && data['device'] === job,
  );
}

function failureOf({ operation }: QmpEvent['data']): string {
  return `its mirror fails to ${String(operation)}`;
}

function endOf(error: unknown): string {
  return typeof error === 'string' ? error : 'somebody has ended it';
}
