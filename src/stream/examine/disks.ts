// The disks of a walked stream: what was written to each, counted, and the rules that need more than one record.

import { valueAt } from '../bounds.js';
import { StreamError } from '../error.js';
import { RecordType } from '../format.js';
import type { StreamRecord } from '../record.js';
import {
  DiskWritesBatch,
  type StreamDisk,
  WriteKind,
  decodeDiskWrites,
  decodeDisks,
} from '../records/disks.js';
import type { RuleId } from './rules.js';

/** What all DISK_WRITES records write to a disk; octets that are written twice count twice. */
export interface SurveyedDisk extends StreamDisk {
  readonly records: number;
  readonly extents: number;
  readonly dataBytes: number;
  readonly zeroBytes: number;
  readonly discardedBytes: number;
}

/** Of one DISK_WRITES record. */
export interface SurveyedWrites {
  readonly disk: number;
  readonly extents: number;
  readonly dataBytes: number;
}

type Counts = { -readonly [Field in keyof SurveyedDisk]: SurveyedDisk[Field] };

export class DiskCounts {
  readonly #batch = new DiskWritesBatch();
  #disks: Counts[] = [];

  /** The disks of the list, in its order. */
  get disks(): readonly SurveyedDisk[] {
    return this.#disks;
  }

  /** What a DISK_WRITES record writes; null for another, or one that is not well-formed: that is verify's business. */
  record(record: StreamRecord): SurveyedWrites | null {
    try {
      if (record.type === RecordType.DISKS) this.#list(decodeDisks(record));
      return record.type === RecordType.DISK_WRITES ? this.#count(record) : null;
    } catch (error) {
      if (error instanceof StreamError) return null;
      throw error;
    }
  }

  #list(disks: readonly StreamDisk[]): void {
    const none = { records: 0, extents: 0, dataBytes: 0, zeroBytes: 0, discardedBytes: 0 };
    this.#disks = disks.map((disk) => ({ ...disk, ...none }));
  }

  #count(record: StreamRecord): SurveyedWrites {
    const batch = this.#batch;
    decodeDiskWrites(record, batch);
    const { disk, count, lengths, kinds } = batch;
    const octets = [0, 0, 0];
    for (let i = 0; i < count; i++) {
      const kind = valueAt(kinds, i);
      octets[kind] = valueAt(octets, kind) + valueAt(lengths, i);
    }
    const dataBytes = valueAt(octets, WriteKind.DATA);
    const counts = this.#disks[disk];
    if (counts !== undefined) {
      counts.records += 1;
      counts.extents += count;
      counts.dataBytes += dataBytes;
      counts.zeroBytes += valueAt(octets, WriteKind.ZERO);
      counts.discardedBytes += valueAt(octets, WriteKind.DISCARD);
    }
    return { disk, extents: count, dataBytes };
  }
}

type Find = (rule: RuleId, message: string) => void;

export class DiskRules {
  readonly #batch = new DiskWritesBatch();
  #disks: readonly StreamDisk[] | null = null;
  #memorySeen = false;

  /** A record of libxc's, by its place. Of one that is not well-formed that was found already. */
  record(record: StreamRecord, find: Find): void {
    try {
      if (record.type === RecordType.PAGE_DATA) this.#memorySeen = true;
      else if (record.type === RecordType.DISKS) this.#list(record, find);
      else if (record.type === RecordType.DISK_WRITES) this.#writes(record, find);
    } catch (error) {
      if (!(error instanceof StreamError)) throw error;
    }
  }

  #list(record: StreamRecord, find: Find): void {
    if (this.#disks !== null) find('disks.place', 'it came before');
    else if (this.#memorySeen) find('disks.place', 'behind PAGE_DATA');
    this.#disks = decodeDisks(record);
  }

  #writes(record: StreamRecord, find: Find): void {
    if (this.#disks === null) {
      find('disks.place', 'before DISKS');
      return;
    }
    const batch = this.#batch;
    decodeDiskWrites(record, batch);
    const disk = this.#disks[batch.disk];
    if (disk === undefined) {
      find('disk-writes.range', `disk ${batch.disk} of ${this.#disks.length}`);
    } else if (batch.end > disk.bytes) {
      find('disk-writes.range', `up to ${batch.end} on disk ${disk.id}, which ends at ${disk.bytes}`);
    }
  }
}
