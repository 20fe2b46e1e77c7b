// The judge of a PV stream: follows the records as they are admitted, without touching the domain, and knows what the
// domain will look like when they are applied. Records of an open checkpoint are admitted long before that, so what
// is applied (the restore state) and what is admitted (this) are two pictures.
//
//   record ─▶ judge ─ refused: typed error, nothing acknowledged
//               └── CHECKPOINT: do vCPUs, p2m and page types fit together? then the checkpoint may be acknowledged

import { valueAt } from '../../stream/bounds.js';
import { StreamError } from '../../stream/error.js';
import { INVALID_FRAME, PageType, RecordType, hasPageData } from '../../stream/format.js';
import { PageBatch, decodePageData } from '../../stream/page-data.js';
import type { StreamRecord } from '../../stream/record.js';
import { decodePvInfo, decodePvP2mFrames, decodePvVcpu } from '../../stream/records/pv.js';
import { GuestError, type GuestErrorCode } from '../error.js';
import type { RestoreOpsContext } from '../ops.js';
import { type PvLayout, pvLayout } from './layout.js';
import { ALL_GOOD, PageView, checkTable, isSuperpage, tableLevel } from './page-table.js';
import { type FrameRole, translateVcpu } from './vcpu.js';

const UNSEEN = 0xff;

export class StreamJudge {
  #layout: PvLayout | null = null;
  #maxPfn = -1;
  #types = new Uint8Array(0);
  #p2mPfns = new Uint32Array(0);
  /** Views of the records, the last that came. */
  readonly #basics: (Uint8Array | null)[];
  readonly #batch = new PageBatch();
  readonly #pages = new PageView();

  constructor(vcpuCount: number) {
    this.#basics = Array.from({ length: vcpuCount }, () => null);
  }

  /** The highest pfn that the stream has announced; -1 before its first X86_PV_P2M_FRAMES. */
  get maxPfn(): number {
    return this.#maxPfn;
  }

  /** @throws GuestError, StreamError */
  judge(context: RestoreOpsContext, record: StreamRecord): void {
    switch (record.type) {
      case RecordType.X86_PV_INFO:
        if (this.#layout !== null) throw refused('UNEXPECTED_RECORD', record, 'a second X86_PV_INFO record');
        this.#layout = pvLayout(decodePvInfo(record).guestWidth);
        break;
      case RecordType.X86_PV_P2M_FRAMES:
        this.#judgeP2mFrames(context, record, this.#needLayout(record));
        break;
      case RecordType.PAGE_DATA:
        this.#judgePages(record, this.#needLayout(record));
        break;
      case RecordType.X86_PV_VCPU_BASIC:
      case RecordType.X86_PV_VCPU_EXTENDED:
      case RecordType.X86_PV_VCPU_XSAVE:
      case RecordType.X86_PV_VCPU_MSRS:
        this.#judgeVcpu(record, this.#needLayout(record));
        break;
      case RecordType.SHARED_INFO:
        this.#needLayout(record);
        break;
      case RecordType.CHECKPOINT:
        this.#judgeWhole(record, this.#needLayout(record));
        break;
      default:
        break;
    }
  }

  #needLayout(record: StreamRecord): PvLayout {
    if (this.#layout === null) {
      throw refused('UNEXPECTED_RECORD', record, 'no X86_PV_INFO record has come before this one');
    }
    return this.#layout;
  }

  #judgeP2mFrames(context: RestoreOpsContext, record: StreamRecord, layout: PvLayout): void {
    if (!context.seenStaticDataEnd && context.formatVersion >= 3) {
      throw refused('UNEXPECTED_RECORD', record, 'X86_PV_P2M_FRAMES comes before STATIC_DATA_END');
    }
    const { startPfn, endPfn, frames } = decodePvP2mFrames(record, layout.width);
    if (endPfn >= context.p2mSize) {
      throw new StreamError('PFN_OUT_OF_RANGE', `the p2m ends at pfn ${endPfn}, the domain before it`, {
        offset: record.offset,
        type: record.type,
        pfn: endPfn,
        p2mSize: context.p2mSize,
      });
    }
    if (endPfn > this.#maxPfn) {
      this.#types = grownTypes(this.#types, endPfn, UNSEEN);
      this.#p2mPfns = grownP2mPfns(this.#p2mPfns, endPfn, layout);
      this.#maxPfn = endPfn;
    }
    this.#p2mPfns.set(frames, Math.floor((startPfn * layout.width) / 4096));
  }

  #judgePages(record: StreamRecord, layout: PvLayout): void {
    const batch = this.#batch;
    decodePageData(record, batch);
    const { body } = record;
    let at = body.byteOffset + batch.dataOffset;
    for (let i = 0; i < batch.count; i++) {
      const type = valueAt(batch.types, i);
      const pfn = valueAt(batch.pfns, i);
      this.#types[pfn] = type;
      if (!hasPageData(type)) continue;
      const level = tableLevel(type);
      if (level > 0) this.#judgeTable(record, layout, pfn, level, at);
      at += 4096;
    }
  }

  #judgeTable(record: StreamRecord, layout: PvLayout, pfn: number, level: number, at: number): void {
    const where = { pfn, level, levels: layout.levels };
    if (level > layout.levels) {
      throw refused('BAD_PAGE_TYPE', record, `pfn ${pfn} is an L${level} table of a guest without`, where);
    }
    const view = this.#pages.over(record.body);
    const bad = checkTable(view, at, level, this.#maxPfn);
    if (bad === ALL_GOOD) return;
    const entry = view.getBigUint64(at + bad * 8, true);
    const facts = { ...where, index: bad, entry, maxPfn: this.#maxPfn };
    if (isSuperpage(view, at + bad * 8, level)) {
      throw refused('SUPERPAGE', record, `L${level}[${bad}] of pfn ${pfn} maps a superpage`, facts);
    }
    throw refused('BAD_FRAME', record, `L${level}[${bad}] of pfn ${pfn} maps a pfn that is not there`, facts);
  }

  #judgeVcpu(record: StreamRecord, layout: PvLayout): void {
    const { vcpuId, context } = decodePvVcpu(record, layout.width);
    if (context.length === 0) return;
    if (vcpuId >= this.#basics.length) {
      const facts = { vcpu: vcpuId, vcpus: this.#basics.length };
      throw refused('BAD_VCPU', record, `the domain has no vCPU ${vcpuId}`, facts);
    }
    if (record.type === RecordType.X86_PV_VCPU_BASIC) this.#basics[vcpuId] = context;
  }

  #typeOf(pfn: number): number {
    return pfn <= this.#maxPfn ? valueAt(this.#types, pfn) : UNSEEN;
  }

  /** Whether what has come so far makes a domain that can run. What start_info's page says is not looked at. */
  #judgeWhole(record: StreamRecord, layout: PvLayout): void {
    if ((this.#basics[0] ?? null) === null) {
      throw refused('INCOMPLETE', record, 'the state of vCPU 0 has not come');
    }
    this.#basics.forEach((basic, vcpu) => {
      if (basic === null) return;
      // A copy: the walk writes back what it is given.
      translateVcpu(basic.slice(), layout, vcpu, 'to mfns', (pfn, role) => {
        const type = this.#typeOf(pfn);
        if (!fitsRole(type, role, layout)) {
          const facts = { vcpu, role, pfn, pageType: type, maxPfn: this.#maxPfn };
          throw refused('BAD_FRAME', record, `the ${role} of vCPU ${vcpu} is not what it must be`, facts);
        }
        return pfn;
      });
    });
    this.#p2mPfns.forEach((pfn, index) => {
      const type = this.#typeOf(pfn);
      if (type !== PageType.NOTAB) {
        const facts = { index, pfn, pageType: type, maxPfn: this.#maxPfn };
        throw refused('BAD_P2M', record, `page ${index} of the p2m, pfn ${pfn}, is no plain page`, facts);
      }
    });
  }
}

/** What a page must be for a vCPU to use it so: a plain page, or a top page table. */
export function fitsRole(type: number, role: FrameRole, layout: PvLayout): boolean {
  return role === 'cr3' || role === 'cr1' ? tableLevel(type) === layout.levels : type === PageType.NOTAB;
}

export function grownTypes(
  types: Uint8Array<ArrayBuffer>,
  maxPfn: number,
  fill: number,
): Uint8Array<ArrayBuffer> {
  const grown = new Uint8Array(maxPfn + 1).fill(fill, types.length);
  grown.set(types);
  return grown;
}

export function grownP2mPfns(
  pfns: Uint32Array<ArrayBuffer>,
  maxPfn: number,
  layout: PvLayout,
): Uint32Array<ArrayBuffer> {
  const grown = new Uint32Array(Math.floor((maxPfn * layout.width) / 4096) + 1).fill(
    INVALID_FRAME,
    pfns.length,
  );
  grown.set(pfns);
  return grown;
}

function refused(
  code: GuestErrorCode,
  record: StreamRecord,
  what: string,
  facts: Readonly<Record<string, string | number | bigint>> = {},
): GuestError {
  return new GuestError(code, what, { offset: record.offset, type: record.type, ...facts });
}
