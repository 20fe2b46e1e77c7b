// A PV stream taken apart into the domain that it describes: the last state of every page, vCPU and record. Pages are
// views of the stream.

import { PAGE_SIZE, RecordType, hasPageData } from '../../src/stream/format.js';
import { PageBatch, decodePageData } from '../../src/stream/page-data.js';
import { RecordReader } from '../../src/stream/record-reader.js';
import type { StreamRecord } from '../../src/stream/record.js';
import {
  type GuestWidth,
  decodePvInfo,
  decodePvP2mFrames,
  decodePvVcpu,
} from '../../src/stream/records/pv.js';

export interface PvImage {
  width: GuestWidth;
  maxPfn: number;
  p2mPfns: number[];
  /** By pfn; pages without data are not there. */
  readonly pages: Map<number, Uint8Array>;
  /** PageType by pfn. */
  readonly types: Map<number, number>;
  /** By record type (and vCPU): bodies, the last that came. */
  readonly bodies: Map<string, Uint8Array>;
  /** Types of the records, without PAGE_DATA. */
  readonly order: number[];
}

/** Reads the stream's records up to, and not with, checkpoint number `checkpoints` (all of them by default). */
export function readPvImage(octets: Uint8Array, checkpoints = Infinity): PvImage {
  const reader = new RecordReader();
  reader.push(octets);
  reader.headers();
  const image: PvImage = {
    width: 8,
    maxPfn: -1,
    p2mPfns: [],
    pages: new Map(),
    types: new Map(),
    bodies: new Map(),
    order: [],
  };
  const batch = new PageBatch();
  let seen = 0;
  for (let record = reader.next(); record !== null; record = reader.next()) {
    if (record.type === RecordType.CHECKPOINT && ++seen >= checkpoints) break;
    take(image, record, batch);
  }
  return image;
}

function take(image: PvImage, record: StreamRecord, batch: PageBatch): void {
  if (record.type === RecordType.PAGE_DATA) {
    decodePageData(record, batch);
    let at = batch.dataOffset;
    for (let i = 0; i < batch.count; i++) {
      const pfn = batch.pfns[i] ?? 0;
      const type = batch.types[i] ?? 0;
      image.types.set(pfn, type);
      if (!hasPageData(type)) continue;
      image.pages.set(pfn, record.body.subarray(at, at + PAGE_SIZE));
      at += PAGE_SIZE;
    }
    return;
  }
  image.order.push(record.type);
  let key = record.type.toString();
  switch (record.type) {
    case RecordType.X86_PV_INFO:
      image.width = decodePvInfo(record).guestWidth;
      break;
    case RecordType.X86_PV_P2M_FRAMES: {
      const { endPfn, frames } = decodePvP2mFrames(record, image.width);
      image.maxPfn = endPfn;
      image.p2mPfns = [...frames];
      break;
    }
    case RecordType.X86_PV_VCPU_BASIC:
    case RecordType.X86_PV_VCPU_EXTENDED:
    case RecordType.X86_PV_VCPU_XSAVE:
    case RecordType.X86_PV_VCPU_MSRS:
      key += ` of vCPU ${decodePvVcpu(record, image.width).vcpuId}`;
      break;
    case RecordType.CHECKPOINT:
    case RecordType.END:
      // Where a stream is cut is no property of the domain.
      return;
    default:
      break;
  }
  image.bodies.set(key, record.body);
}
