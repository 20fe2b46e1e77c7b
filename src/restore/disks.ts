// The disks of a domain that is restored. What a stream's first checkpoint writes goes to the images as it comes, or
// beside them while they belong to an older checkpoint (staged); later ones' writes are kept until their checkpoint is
// committed, and then are the last of it: a domain that cannot be started from it has the disks of the one before.
//
//   DISKS ─▶ the same as the domain's? ─▶ begin
//   DISK_WRITES ─▶ fits the disk? ─┬─ first checkpoint: write ──────────────────┐
//                                  └─ later: buffer ┄ commit: write, write, … ──┴─▶ committed(point)

import { withinAwake } from '../flow/awake.js';
import { HypervisorError } from '../hypervisor/port.js';
import type { DiskTarget } from '../hypervisor/port-disks.js';
import { StreamError } from '../stream/error.js';
import { RecordType } from '../stream/format.js';
import type { StreamRecord } from '../stream/record.js';
import { DiskWritesBatch, type StreamDisk, decodeDiskWrites, decodeDisks } from '../stream/records/disks.js';
import { DiskBuffer } from './disk-buffer.js';
import { RestoreError } from './error.js';

export interface DiskRestoreOptions {
  /** Of the stream: what its checkpoints are called in the images. */
  readonly streamUuid: string;
  /** staged: the images belong to an older checkpoint that may still be needed. Default: in-place. */
  readonly first?: 'in-place' | 'staged';
  /** Octets of an open checkpoint's writes that are kept in memory, beside its other records. Default: 32 MiB. */
  readonly memoryBytes?: number;
  /** Where a file is made for the rest; left out: there is none. */
  readonly spillDirectory?: string;
  /** The most that may be in the file. Default: 1 GiB. */
  readonly spillBytes?: number;
  /** For one record, by the images or the file: one that takes longer hangs. Default: a minute. */
  readonly limitMs?: number;
}

const MEMORY_DEFAULT_BYTES = 32 * 1024 * 1024;
const SPILL_DEFAULT_BYTES = 1024 * 1024 * 1024;
/** Longer than whoever writes the images waits for them, and says which it is that hangs. */
const LIMIT_DEFAULT_MS = 60_000;

export class RestoredDisks {
  readonly #target: DiskTarget;
  readonly #batch = new DiskWritesBatch();
  readonly #buffer: DiskBuffer;
  readonly #limitMs: number;
  #streamUuid: string;
  #first: 'in-place' | 'staged';
  /** Of the stream at hand: its list has come; its first checkpoint has not been committed. */
  #isListed = false;
  #isFirst = true;
  /** Writes of the first checkpoint. */
  #written = 0;

  constructor(target: DiskTarget, options: DiskRestoreOptions) {
    this.#target = target;
    this.#streamUuid = options.streamUuid;
    this.#first = options.first ?? 'in-place';
    this.#limitMs = options.limitMs ?? LIMIT_DEFAULT_MS;
    this.#buffer = new DiskBuffer({
      memoryBytes: options.memoryBytes ?? MEMORY_DEFAULT_BYTES,
      directory: options.spillDirectory ?? null,
      fileBytes: options.spillBytes ?? SPILL_DEFAULT_BYTES,
      limitMs: this.#limitMs,
    });
  }

  /** Writes of the open checkpoint have come. */
  get isOpen(): boolean {
    return this.#written > 0 || this.#buffer.count > 0;
  }

  get bufferedBytes(): number {
    return this.#buffer.bytes;
  }

  /** Without touching the images. @throws StreamError, RestoreError DISKS_DIFFER, UNEXPECTED_RECORD */
  admit(record: StreamRecord): void {
    if (record.type === RecordType.DISKS) {
      if (this.#isListed) throw unexpected(record, 'a second list of the disks');
      requireSame(decodeDisks(record), this.#target.disks);
      this.#isListed = true;
      return;
    }
    if (!this.#isListed) throw unexpected(record, 'disk writes before the list of the disks');
    const batch = this.#batch;
    decodeDiskWrites(record, batch);
    const { disk, end } = batch;
    const bytes = this.#target.disks[disk]?.bytes ?? -1;
    if (end <= bytes) return;
    const message = bytes < 0 ? `there is no disk ${disk}` : `disk ${disk} ends at ${bytes}, not at ${end}`;
    const { type, offset } = record;
    throw new StreamError('OUT_OF_DISK', message, { offset, type, disk, end, bytes });
  }

  /** Memory comes, or a checkpoint: the list was before it. @throws RestoreError DISKS_DIFFER */
  requireListed(): void {
    if (!this.#isListed) requireSame([], this.#target.disks);
  }

  /** What was admitted is done as it comes: nothing is kept of it. */
  comesAtOnce(type: number): boolean {
    return type === RecordType.DISKS || this.#isFirst;
  }

  /** Does what the record says. It was admitted. @throws HypervisorError (HUNG among them) */
  async apply(record: StreamRecord): Promise<void> {
    if (record.type === RecordType.DISKS) {
      await this.#target.begin(this.#first);
      return;
    }
    this.#written++;
    await this.#write(record);
  }

  /** Resolves to whether the record's memory is wanted no more. @throws RestoreError BUFFER_LIMIT, SPILL_FAILED */
  buffer(record: StreamRecord): Promise<boolean> {
    return this.#buffer.push(record);
  }

  /**
   * The images are as of the checkpoint.
   * @param done is told of each record whose memory is wanted no more; and how many there were
   * @throws HypervisorError (HUNG among them), RestoreError SPILL_FAILED
   */
  async commit(epoch: number, done: (record: StreamRecord) => void): Promise<number> {
    const { count } = this.#buffer;
    await this.#buffer.forEach(async (record) => {
      await this.#write(record);
      done(record);
    });
    await this.#buffer.clear();
    await this.#target.committed({ streamUuid: this.#streamUuid, epoch });
    this.#written = 0;
    this.#isFirst = false;
    return count;
  }

  /** The open checkpoint comes to nothing. What is staged goes with the next begin(), or taken(). Never rejects. */
  async drop(): Promise<void> {
    this.#written = 0;
    await this.#buffer.clear();
  }

  /** Another stream goes on from the last checkpoint that was committed. */
  async goOn(streamUuid: string): Promise<void> {
    await this.drop();
    this.#streamUuid = streamUuid;
    this.#first = 'staged';
    this.#isFirst = true;
    this.#isListed = false;
  }

  async #write(record: StreamRecord): Promise<void> {
    const batch = this.#batch;
    decodeDiskWrites(record, batch);
    const { disk, dataOffset } = batch;
    const written = this.#target.write(disk, batch, record.body.subarray(dataOffset));
    // Whoever sends waits for this, and may have no limit of his own: while disks are copied, nothing is owed to him.
    await withinAwake(this.#limitMs, written, () => this.#hung(disk));
  }

  #hung(disk: number): HypervisorError {
    const id = this.#target.disks[disk]?.id ?? String(disk);
    const message = `the disk ${id} of the standby does not take what is written: it hangs`;
    return new HypervisorError('HUNG', message, { disk: id, limitMs: this.#limitMs });
  }
}

/** The stream's disks and the domain's are the same, in the same order. @throws RestoreError DISKS_DIFFER */
export function requireSame(ofStream: readonly StreamDisk[], ofDomain: readonly StreamDisk[]): void {
  const isSame =
    ofStream.length === ofDomain.length &&
    ofStream.every(({ id, bytes }, i) => id === ofDomain[i]?.id && bytes === ofDomain[i].bytes);
  if (isSame) return;
  const facts = { stream: named(ofStream), domain: named(ofDomain) };
  const message = `the stream is of a domain with ${facts.stream}, this one has ${facts.domain}`;
  throw new RestoreError('DISKS_DIFFER', message, facts);
}

function named(disks: readonly StreamDisk[]): string {
  const each = disks.map(({ id, bytes }) => `${id} (${bytes} octets)`);
  return each.length === 0 ? 'no replicated disks' : `the disks ${each.join(', ')}`;
}

function unexpected({ type, offset, body }: StreamRecord, what: string): RestoreError {
  return new RestoreError('UNEXPECTED_RECORD', what, { type, offset, length: body.length });
}
