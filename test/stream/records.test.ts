// The bodies of the other records: values come back as they were written, and the structural check says of every
// body what libxc's restorer would say of it.

import { expect } from 'chai';
import fc from 'fast-check';
import { checkRecord } from '../../src/stream/check.js';
import { DomainType, PAGE_SIZE, RecordType } from '../../src/stream/format.js';
import { decodeDirtyPfnList, encodeDirtyPfnList } from '../../src/stream/records/dirty-pfns.js';
import { decodeHvmContext, decodeHvmParams, encodeHvmParams } from '../../src/stream/records/hvm.js';
import {
  decodePvInfo,
  decodePvP2mFrames,
  decodePvVcpu,
  encodePvInfo,
  encodePvP2mFrames,
  encodePvVcpuHeader,
  p2mFrameCount,
} from '../../src/stream/records/pv.js';
import { decodeTscInfo, encodeTscInfo } from '../../src/stream/records/tsc.js';
import { concatenate } from '../../src/stream/writer.js';
import { counting, expectStreamError, pageDataBody, recordOf } from './streams.js';
import { decodeCpuidPolicy, decodeMsrPolicy, encodeCpuidPolicy, encodeMsrPolicy } from './codecs.js';

const { X86_PV, X86_HVM } = DomainType;
const u32 = fc.integer({ min: 0, max: 0xffffffff });
const u64 = fc.bigInt({ min: 0n, max: 0xffffffffffffffffn });
const pfn = fc.integer({ min: 0, max: 0xfffffffe });

/** Lengths of a body of zeroes that the check accepts, out of those that are tried. */
function acceptedLengths(type: number, domainType: DomainType, lengths: readonly number[]): number[] {
  return lengths.filter((length) => {
    try {
      checkRecord(recordOf(type, new Uint8Array(length)), domainType);
      return true;
    } catch {
      expectStreamError('BAD_RECORD', () => checkRecord(recordOf(type, new Uint8Array(length)), domainType));
      return false;
    }
  });
}

function upTo(length: number): number[] {
  return Array.from({ length: length + 1 }, (_, index) => index);
}

describe('record bodies', () => {
  describe('values come back', () => {
    it('X86_TSC_INFO', () => {
      const info = fc.record({ mode: u32, khz: u32, nsec: u64, incarnation: u32 });
      fc.assert(
        fc.property(info, (value) => {
          expect(decodeTscInfo(recordOf(RecordType.X86_TSC_INFO, encodeTscInfo(value)))).to.deep.equal(value);
        }),
      );
    });

    it('HVM_PARAMS', () => {
      fc.assert(
        fc.property(fc.array(fc.record({ index: u64, value: u64 })), (params) => {
          const record = recordOf(RecordType.HVM_PARAMS, encodeHvmParams(params));
          expect(decodeHvmParams(record)).to.deep.equal(params);
        }),
      );
    });

    it('CPU policies', () => {
      const leaf = fc.record({ leaf: u32, subleaf: u32, a: u32, b: u32, c: u32, d: u32 });
      const entry = fc.record({ index: u32, flags: u32, value: u64 });
      fc.assert(
        fc.property(
          fc.array(leaf, { minLength: 1 }),
          fc.array(entry, { minLength: 1 }),
          (leaves, entries) => {
            const cpuid = recordOf(RecordType.X86_CPUID_POLICY, encodeCpuidPolicy(leaves));
            expect(decodeCpuidPolicy(cpuid)).to.deep.equal(leaves);
            const msrs = recordOf(RecordType.X86_MSR_POLICY, encodeMsrPolicy(entries));
            expect(decodeMsrPolicy(msrs)).to.deep.equal(entries);
          },
        ),
      );
    });

    it('X86_PV_P2M_FRAMES of both widths', () => {
      const range = fc.tuple(fc.nat({ max: 0xffff0000 }), fc.nat({ max: 20000 }), fc.constantFrom(4, 8));
      fc.assert(
        fc.property(range, pfn, ([startPfn, more, width], frame) => {
          const endPfn = startPfn + more;
          const frames = new Uint32Array(p2mFrameCount(startPfn, endPfn, width)).fill(frame);
          const record = recordOf(
            RecordType.X86_PV_P2M_FRAMES,
            encodePvP2mFrames({ startPfn, endPfn, frames }),
          );
          expect(decodePvP2mFrames(record, width)).to.deep.equal({ startPfn, endPfn, frames });
          checkRecord(record, X86_PV);
        }),
      );
    });

    it('X86_PV_INFO, vCPU records and the list of dirty pfns', () => {
      for (const info of [
        { guestWidth: 4, levels: 3 },
        { guestWidth: 8, levels: 4 },
      ] as const) {
        expect(decodePvInfo(recordOf(RecordType.X86_PV_INFO, encodePvInfo(info)))).to.deep.equal(info);
      }
      const vcpu = concatenate([encodePvVcpuHeader(0xfffffff0), counting(64)]);
      expect(decodePvVcpu(recordOf(RecordType.X86_PV_VCPU_XSAVE, vcpu), 8)).to.deep.equal({
        vcpuId: 0xfffffff0,
        context: counting(64),
      });
      const pfns = Uint32Array.of(0xfffffffe, 0, 7, 7);
      const list = recordOf(RecordType.CHECKPOINT_DIRTY_PFN_LIST, encodeDirtyPfnList(pfns));
      expect(decodeDirtyPfnList(list)).to.deep.equal(pfns);
      expect(encodeDirtyPfnList(pfns, 2).length).to.equal(16);
    });
  });

  describe('structural check', () => {
    it('lengths', () => {
      for (const type of [
        RecordType.END,
        RecordType.VERIFY,
        RecordType.CHECKPOINT,
        RecordType.STATIC_DATA_END,
      ]) {
        expect(acceptedLengths(type, X86_HVM, upTo(16))).to.deep.equal([0]);
      }
      expect(acceptedLengths(RecordType.X86_TSC_INFO, X86_PV, upTo(40))).to.deep.equal([24]);
      expect(acceptedLengths(RecordType.X86_CPUID_POLICY, X86_PV, upTo(80))).to.deep.equal([24, 48, 72]);
      expect(acceptedLengths(RecordType.X86_MSR_POLICY, X86_HVM, upTo(50))).to.deep.equal([16, 32, 48]);
      expect(acceptedLengths(RecordType.CHECKPOINT_DIRTY_PFN_LIST, X86_HVM, upTo(20))).to.deep.equal([
        0, 8, 16,
      ]);
      expect(acceptedLengths(RecordType.HVM_CONTEXT, X86_HVM, upTo(4))).to.deep.equal([1, 2, 3, 4]);
      // Zeroes are no parameters: the header alone, as Xen 4.6 to 4.8 wrote it.
      expect(acceptedLengths(RecordType.HVM_PARAMS, X86_HVM, upTo(40))).to.deep.equal([8]);
      expect(
        acceptedLengths(RecordType.SHARED_INFO, X86_PV, [0, 8, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 8]),
      ).to.deep.equal([PAGE_SIZE]);
      expect(acceptedLengths(RecordType.TOOLSTACK, X86_PV, upTo(3))).to.deep.equal([0, 1, 2, 3]);
    });

    it('lengths of vCPU contexts, none included', () => {
      const { X86_PV_VCPU_BASIC, X86_PV_VCPU_EXTENDED, X86_PV_VCPU_XSAVE, X86_PV_VCPU_MSRS } = RecordType;
      const near = [0, 7, 8, 9, 2807, 2808, 2809, 5175, 5176, 5177];
      expect(acceptedLengths(X86_PV_VCPU_BASIC, X86_PV, near)).to.deep.equal([8, 2808, 5176]);
      expect(acceptedLengths(X86_PV_VCPU_EXTENDED, X86_PV, [0, 7, 8, 9, 135, 136, 137])).to.deep.equal([
        8, 9, 135, 136,
      ]);
      expect(acceptedLengths(X86_PV_VCPU_XSAVE, X86_PV, [0, 7, 8, 9, 23, 24, 25, 5000])).to.deep.equal([
        8, 24, 25, 5000,
      ]);
      expect(acceptedLengths(X86_PV_VCPU_MSRS, X86_PV, upTo(45))).to.deep.equal([8, 24, 40]);
      const narrow = recordOf(X86_PV_VCPU_BASIC, new Uint8Array(2808));
      checkRecord(narrow, X86_PV, 4);
      expectStreamError('BAD_RECORD', () => checkRecord(narrow, X86_PV, 8));
    });

    it('X86_PV_INFO: the two combinations, in eight octets or more', () => {
      const check = (...octets: number[]) =>
        checkRecord(recordOf(RecordType.X86_PV_INFO, Uint8Array.from(octets)), X86_PV);
      check(4, 3, 0, 0, 0, 0, 0, 0);
      check(8, 4, 1, 2, 3, 4, 5, 6);
      check(8, 4, 0, 0, 0, 0, 0, 0, 0);
      expectStreamError('BAD_RECORD', () => check(8, 4, 0, 0, 0, 0, 0));
      for (const [width, levels] of [
        [8, 3],
        [4, 4],
        [0, 0],
        [2, 2],
      ] as const) {
        expectStreamError('BAD_RECORD', () => check(width, levels, 0, 0, 0, 0, 0, 0));
      }
    });

    it('X86_PV_P2M_FRAMES', () => {
      const check = (startPfn: number, endPfn: number, frames: number[], width: 4 | 8 | null = 8) =>
        checkRecord(
          recordOf(
            RecordType.X86_PV_P2M_FRAMES,
            encodePvP2mFrames({ startPfn, endPfn, frames: Uint32Array.from(frames) }),
          ),
          X86_PV,
          width,
        );
      check(0, 511, [1]);
      check(511, 512, [1, 2]);
      check(511, 512, [1], 4);
      check(511, 512, [1], null);
      expectStreamError('BAD_RECORD', () => check(0, 512, [1]));
      expectStreamError('BAD_RECORD', () => check(0, 511, [1, 2]));
      expectStreamError('BAD_RECORD', () => check(0, 511, []));
      expectStreamError('BAD_RECORD', () => check(1, 0, [1]));
      expectStreamError('PFN_OUT_OF_RANGE', () => check(0, 511, [0xffffffff]));
      expectStreamError('PFN_OUT_OF_RANGE', () => check(0xffffffff, 0xffffffff, [1]));
      expect(acceptedLengths(RecordType.X86_PV_P2M_FRAMES, X86_PV, upTo(40))).to.deep.equal([16]);
    });

    it('HVM_PARAMS: as many as it says', () => {
      const body = encodeHvmParams([
        { index: 1n, value: 2n },
        { index: 3n, value: 4n },
      ]);
      const check = (bytes: Uint8Array) => checkRecord(recordOf(RecordType.HVM_PARAMS, bytes), X86_HVM);
      check(body);
      expectStreamError('BAD_RECORD', () => check(body.subarray(0, 32)));
      expectStreamError('BAD_RECORD', () => check(Uint8Array.of(...body, 0)));
      body.set([0xff, 0xff, 0xff, 0xff]);
      expectStreamError('BAD_RECORD', () => check(body));
    });

    it('pfns that cannot be held', () => {
      const list = recordOf(RecordType.CHECKPOINT_DIRTY_PFN_LIST, Uint8Array.of(0, 0, 0, 0, 1, 0, 0, 0));
      const { facts } = expectStreamError('PFN_OUT_OF_RANGE', () => checkRecord(list, X86_HVM));
      expect(facts).to.include({ pfn: 0x100000000n, type: RecordType.CHECKPOINT_DIRTY_PFN_LIST });
      const pages = recordOf(RecordType.PAGE_DATA, pageDataBody([[0xffffffff, 0]]));
      expectStreamError('PFN_OUT_OF_RANGE', () => checkRecord(pages, X86_HVM));
    });

    it('records of the other domain type', () => {
      const bodies = new Map<number, Uint8Array>([
        [RecordType.X86_PV_INFO, encodePvInfo({ guestWidth: 8, levels: 4 })],
        [RecordType.X86_PV_P2M_FRAMES, new Uint8Array(16)],
        [RecordType.X86_PV_VCPU_BASIC, new Uint8Array(8)],
        [RecordType.X86_PV_VCPU_EXTENDED, new Uint8Array(8)],
        [RecordType.X86_PV_VCPU_XSAVE, new Uint8Array(8)],
        [RecordType.X86_PV_VCPU_MSRS, new Uint8Array(8)],
        [RecordType.SHARED_INFO, new Uint8Array(PAGE_SIZE)],
      ]);
      for (const [type, body] of bodies) {
        checkRecord(recordOf(type, body), X86_PV);
        expectStreamError('BAD_RECORD', () => checkRecord(recordOf(type, body), X86_HVM));
      }
      for (const type of [RecordType.HVM_CONTEXT, RecordType.HVM_PARAMS]) {
        checkRecord(recordOf(type, new Uint8Array(8)), X86_HVM);
        expectStreamError('BAD_RECORD', () => checkRecord(recordOf(type, new Uint8Array(8)), X86_PV));
      }
    });

    it('types that the specification does not name are left to the restorer', () => {
      for (const type of [0x13, 0x7fffffff, 0x80000000, 0xffffffff]) {
        checkRecord(recordOf(type, counting(11)), X86_PV);
      }
    });

    it('says which record it was', () => {
      const record = { type: RecordType.HVM_CONTEXT, body: new Uint8Array(0), offset: 4711 };
      const { facts, message } = expectStreamError('BAD_RECORD', () => decodeHvmContext(record));
      expect(facts).to.deep.equal({ type: RecordType.HVM_CONTEXT, length: 0, offset: 4711 });
      expect(message).to.match(/^HVM context record/);
    });
  });
});
