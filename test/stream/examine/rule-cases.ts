// Of each rule, streams that break it: small ones of real records, changed in one place.

import { expect } from 'chai';
import { type RuleId } from '../../../src/stream/examine/rules.js';
import { RecordType } from '../../../src/stream/format.js';
import { CheckpointState, LibxlRecordType, encodeLibxlHeader } from '../../../src/stream/libxl.js';
import { viewOf } from '../../../src/stream/octets.js';
import {
  WriteKind,
  encodeDisks,
  writeDiskExtent,
  writeDiskWritesHeader,
} from '../../../src/stream/records/disks.js';
import { concatenate, encodeRecord } from '../../../src/stream/writer.js';
import { encodeXlHeader, xlHeaderOf } from '../../../src/stream/xl.js';
import { readFixture } from '../../fixtures/xen.js';
import { pageDataBody } from '../streams.js';
import {
  type Part,
  checkpointEnd,
  checkpointed,
  libxcStream,
  libxlEnd,
  libxlOpening,
  octetsOf,
  part,
  realParts,
  soundParts,
  xlHeader,
} from './support.js';
import { libvirtFile } from './wrapped-files.js';
import { encodeCheckpointState } from '../codecs.js';

type Guest = 'pv' | 'hvm';

export function patched(octets: Uint8Array, at: number, ...values: number[]): Uint8Array {
  const copy = octets.slice();
  copy.set(values, at);
  return copy;
}

/** The stream with its first record of the type changed. */
export function changed(guest: Guest, type: number, change: (body: Uint8Array) => Uint8Array): Uint8Array {
  const parts = soundParts(guest);
  const index = parts.findIndex((one) => one.type === type);
  expect(index).to.be.at.least(0);
  return libxcStream(
    guest,
    parts.map((one, at) => (at === index ? { type, body: change(one.body) } : one)),
  );
}

/** The stream with records put in before the first of the type. */
export function inserted(guest: Guest, before: number, ...more: Part[]): Uint8Array {
  const parts = soundParts(guest);
  parts.splice(
    parts.findIndex((one) => one.type === before),
    0,
    ...more,
  );
  return libxcStream(guest, parts);
}

export function without(guest: Guest, ...types: number[]): Uint8Array {
  return libxcStream(
    guest,
    soundParts(guest).filter((one) => !types.includes(one.type)),
  );
}

function first(guest: Guest, type: number): Part {
  const found = soundParts(guest).find((one) => one.type === type);
  if (found === undefined) {
    throw new Error(`no record of type ${type}`);
  }
  return found;
}

export function libxl(libxc: Uint8Array, ...after: Uint8Array[]): Uint8Array {
  return concatenate([libxlOpening, libxc, ...after]);
}

export const zeroes = (count: number) => new Uint8Array(count);
export const cut = (body: Uint8Array) => body.subarray(0, body.length - 1);
const longer = (body: Uint8Array) => concatenate([body, zeroes(1)]);
const pv = libxcStream('pv');
const disks = part(RecordType.DISKS, encodeDisks([{ id: 'root', bytes: 1024 }]));
/** Zeroes. */
function diskWrites(disk: number, offset: number): Part {
  const body = zeroes(24);
  writeDiskWritesHeader(body, 0, disk, 1);
  writeDiskExtent(viewOf(body), 8, offset, 512, WriteKind.ZERO);
  return part(RecordType.DISK_WRITES, body);
}
const { END, PAGE_DATA, CHECKPOINT, STATIC_DATA_END, HVM_PARAMS, HVM_CONTEXT } = RecordType;
const emulator = (body: number[]) => encodeRecord(LibxlRecordType.EMULATOR_CONTEXT, Uint8Array.from(body));
export const emulatorState = emulator([2, 0, 0, 0, 0, 0, 0, 0, 77]);
/** Two checkpoints of a domain whose registers are in its device model's state. */
export const withEmulator = (...states: Uint8Array[][]) => {
  const ending = (state: Uint8Array[] = []) =>
    concatenate([encodeRecord(CHECKPOINT), ...state, encodeRecord(LibxlRecordType.CHECKPOINT_END)]);
  return libxl(
    without('hvm', HVM_CONTEXT, END),
    ending(states[0]),
    octetsOf([first('hvm', PAGE_DATA)]),
    ending(states[1]),
  );
};
const xenstore = (text: string) =>
  encodeRecord(
    LibxlRecordType.EMULATOR_XENSTORE_DATA,
    concatenate([Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0), new TextEncoder().encode(text)]),
  );
const stateRecord = (body: Uint8Array) => encodeRecord(LibxlRecordType.CHECKPOINT_STATE, body);
const back = encodeRecord(RecordType.CHECKPOINT_DIRTY_PFN_LIST, zeroes(16));
export const noEnd: RuleId = 'no-end';

/** [rule, stream, rules that it breaks or touches besides]. */
/** [rule, stream, rules that it breaks or touches besides]. */
export const cases: readonly (readonly [RuleId, () => Uint8Array, RuleId[]?])[] = [
  ['not-a-stream', () => zeroes(0)],
  ['not-a-stream', () => zeroes(7)],
  ['not-a-stream', () => new TextEncoder().encode('root:x:0:0:root:/root:/bin/bash\n')],
  ['not-a-stream', () => patched(xlHeader, 31, 0x59)],
  ['wrapper', () => libvirtFile(libxcStream('pv'))],
  ['legacy', () => patched(zeroes(64), 0, 0, 4, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255)],
  ['legacy', () => patched(zeroes(64), 0, 0, 4, 0, 0, 255, 255, 255, 255)],
  ['legacy', () => patched(xlHeader, 36, 1)],
  ['version', () => patched(pv, 15, 4)],
  ['version', () => patched(pv, 15, 1)],
  ['version', () => patched(libxl(pv, libxlEnd), 11, 3)],
  ['version', () => patched(xlHeader, 36, 7)],
  ['big-endian', () => patched(pv, 17, 1)],
  ['big-endian', () => patched(libxl(pv, libxlEnd), 15, 1)],
  ['big-endian', () => patched(xlHeader, 32, 1, 2, 3, 4)],

  ['xl.header', () => patched(xlHeader, 32, 9)],
  ['xl.header', () => patched(xlHeader, 49, 255)],
  ['xl.config', () => concatenate([encodeXlHeader(xlHeaderOf('name = "x"')), libxl(pv, libxlEnd)])],
  [
    'xl.config',
    () =>
      concatenate([
        encodeXlHeader({ ...xlHeaderOf(''), config: Uint8Array.of(123, 125) }),
        libxl(pv, libxlEnd),
      ]),
  ],
  ['libxl.header', () => concatenate([xlHeader, pv])],
  ['libxl.options', () => patched(libxl(pv, libxlEnd), 15, 4)],
  ['libxl.empty', () => libxl(pv, encodeRecord(LibxlRecordType.END, zeroes(8)))],
  ['libxl.emulator', () => libxl(pv, emulator([2, 0, 0, 0]), libxlEnd)],
  ['libxl.emulator', () => libxl(pv, emulator([3, 0, 0, 0, 0, 0, 0, 0]), libxlEnd)],
  ['libxl.xenstore-data', () => libxl(pv, xenstore('key\0value'), libxlEnd)],
  ['libxl.xenstore-data', () => libxl(pv, xenstore('key\0'), libxlEnd)],
  [
    'libxl.emulator',
    () => libxl(pv, encodeRecord(LibxlRecordType.EMULATOR_XENSTORE_DATA, zeroes(4)), libxlEnd),
  ],
  [
    'libxl.checkpoint-state',
    () => concatenate([checkpointed('pv', 'libxl'), stateRecord(Uint8Array.of(4, 0, 0, 0))]),
    [noEnd],
  ],
  [
    'libxl.direction',
    () =>
      concatenate([
        checkpointed('pv', 'libxl'),
        stateRecord(encodeCheckpointState(CheckpointState.SVM_READY)),
      ]),
    [noEnd],
  ],
  ['libxl.direction', () => concatenate([stateRecord(encodeCheckpointState(CheckpointState.NEW)), back])],
  ['libxl.order', () => libxl(pv, encodeRecord(LibxlRecordType.LIBXC_CONTEXT), libxlEnd)],
  ['libxl.order', () => libxl(pv, checkpointEnd, libxlEnd)],
  ['libxl.order', () => concatenate([encodeLibxlHeader(), libxlEnd])],

  ['length', () => patched(pv, 44, 0, 0, 0, 9)],
  ['length', () => concatenate([encodeLibxlHeader(), Uint8Array.of(3, 0, 0, 0, 1, 0, 0, 8)])],
  [
    'padding',
    () => patched(libxl(pv, emulator([2, 0, 0, 0, 0, 0, 0, 0, 5]), libxlEnd), 24 + pv.length + 17, 1),
  ],
  ['record-type', () => inserted('pv', END, part(0x13, zeroes(3)))],
  ['record-type', () => libxl(pv, encodeRecord(6, zeroes(3)), libxlEnd)],
  ['optional-record', () => inserted('pv', END, part(0x80000013, zeroes(3)))],
  ['optional-record', () => libxl(pv, encodeRecord(0x80000001, zeroes(3)), libxlEnd)],
  ['truncated', () => pv.subarray(0, pv.length - 8)],
  ['truncated', () => pv.subarray(0, pv.length - 1)],
  ['truncated', () => pv.subarray(0, 39)],
  ['truncated', () => libxl(pv)],
  [
    'truncated',
    () => concatenate([checkpointed('pv', 'libxc'), encodeRecord(PAGE_DATA, pageDataBody([[1, 0]]))]),
  ],
  ['no-end', () => checkpointed('pv', 'libxc')],
  ['no-end', () => checkpointed('hvm', 'xl')],
  ['trailing', () => longer(pv)],
  ['trailing', () => concatenate([xlHeader, libxl(pv, libxlEnd, zeroes(44))])],
  ['handshake', () => readFixture('pv-live')],

  ['libxc.header', () => patched(pv, 8, 0)],
  ['libxc.header', () => libxl(patched(pv, 0, 0), libxlEnd)],
  ['libxc.options', () => patched(pv, 16, 1)],
  ['libxc.reserved', () => patched(pv, 23, 1)],
  ['libxc.reserved', () => patched(pv, 30, 1)],
  ['libxc.domain-header', () => patched(pv, 24, 3)],
  ['libxc.domain-header', () => patched(pv, 28, 13)],
  ['guest', () => inserted('pv', END, first('hvm', HVM_PARAMS))],
  ['guest', () => inserted('hvm', END, first('pv', RecordType.SHARED_INFO))],
  ['empty', () => changed('pv', END, longer)],
  ['empty', () => changed('pv', STATIC_DATA_END, longer)],
  ['empty', () => inserted('pv', PAGE_DATA, part(RecordType.VERIFY, zeroes(8)))],
  [
    'empty',
    () => {
      const parts = [...soundParts('hvm').slice(0, -1), part(CHECKPOINT, zeroes(2))];
      return libxcStream('hvm', parts);
    },
    [noEnd],
  ],
  ['no-content', () => inserted('hvm', END, part(HVM_PARAMS, zeroes(8)))],
  ['no-content', () => inserted('pv', END, part(RecordType.X86_PV_VCPU_MSRS, zeroes(8)))],

  ['page-data.count', () => inserted('pv', END, part(PAGE_DATA, zeroes(8)))],
  ['page-data.reserved', () => changed('pv', PAGE_DATA, (body) => patched(body, 4, 1))],
  ['page-data.length', () => changed('pv', PAGE_DATA, cut)],
  ['page-data.length', () => changed('pv', PAGE_DATA, longer)],
  ['page-data.length', () => inserted('pv', END, part(PAGE_DATA, zeroes(7)))],
  [
    'page-data.length',
    () => inserted('pv', END, part(PAGE_DATA, [9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])),
  ],
  ['page-data.pfn-reserved', () => changed('pv', PAGE_DATA, (body) => patched(body, 8 + 6, 0x10))],
  ['page-data.pfn-type', () => changed('pv', PAGE_DATA, (body) => patched(body, 8 + 7, 0x50))],
  ['page-data.pfn-type', () => changed('hvm', PAGE_DATA, (body) => patched(body, 8 + 7, 0x80))],
  ['page-data.pfn-range', () => inserted('pv', END, part(PAGE_DATA, pageDataBody([[0x400, 0]])))],
  ['page-data.pfn-range', () => changed('hvm', PAGE_DATA, (body) => patched(body, 8, 255, 255, 255, 255))],
  ['page-data.pfn-range', () => changed('hvm', PAGE_DATA, (body) => patched(body, 12, 1))],

  [
    'static-data.version',
    () => patched(without('pv', RecordType.X86_CPUID_POLICY, RecordType.X86_MSR_POLICY), 15, 2),
  ],
  ['static-data.end', () => without('pv', STATIC_DATA_END)],
  ['static-data.end', () => without('hvm', STATIC_DATA_END)],
  ['static-data.twice', () => inserted('hvm', PAGE_DATA, part(STATIC_DATA_END))],
  ['static-data.late', () => inserted('hvm', PAGE_DATA, first('hvm', RecordType.X86_MSR_POLICY))],
  ['pv-info.twice', () => inserted('pv', STATIC_DATA_END, first('pv', RecordType.X86_PV_INFO))],
  [
    'order',
    () => {
      const frames = first('pv', RecordType.X86_PV_P2M_FRAMES);
      const [info, ...others] = soundParts('pv').filter((one) => one !== frames && one.type !== frames.type);
      return libxcStream(
        'pv',
        [info, ...others.slice(0, 4), frames, ...others.slice(4)].filter((one) => one !== undefined),
      );
    },
  ],
  ['missing', () => without('hvm', HVM_CONTEXT)],
  ['missing', () => without('pv', RecordType.SHARED_INFO)],
  ['missing', () => libxl(without('hvm', HVM_CONTEXT), libxlEnd)],
  ['missing', () => libxl(without('hvm', HVM_CONTEXT), emulator([2, 0, 0, 0, 0, 0, 0, 0]), libxlEnd)],
  ['missing', () => libxl(without('hvm', HVM_CONTEXT, PAGE_DATA), emulatorState, libxlEnd)],
  ['missing', () => libxl(without('pv', RecordType.SHARED_INFO), emulatorState, libxlEnd)],
  ['missing', () => concatenate([withEmulator([]), encodeRecord(END), libxlEnd])],
  [
    'end-in-checkpoint',
    () =>
      concatenate([
        checkpointed('hvm', 'libxc'),
        octetsOf([first('hvm', RecordType.X86_TSC_INFO), part(END)]),
      ]),
  ],
  [
    'end-in-checkpoint',
    () => concatenate([checkpointed('hvm', 'libxl'), encodeRecord(END), emulatorState, libxlEnd]),
  ],

  ['pv-info', () => changed('pv', RecordType.X86_PV_INFO, (body) => patched(body, 0, 8, 3))],
  ['pv-info.reserved', () => changed('pv', RecordType.X86_PV_INFO, (body) => patched(body, 7, 1))],
  [
    'p2m-frames',
    () => changed('pv', RecordType.X86_PV_P2M_FRAMES, (body) => body.subarray(0, body.length - 8)),
  ],
  ['vcpu', () => changed('pv', RecordType.X86_PV_VCPU_BASIC, cut)],
  ['vcpu', () => changed('pv', RecordType.X86_PV_VCPU_XSAVE, () => zeroes(7))],
  ['vcpu', () => changed('pv', RecordType.X86_PV_VCPU_BASIC, (body) => patched(body, 1, 0x20))],
  ['vcpu.reserved', () => changed('pv', RecordType.X86_PV_VCPU_EXTENDED, (body) => patched(body, 4, 1))],
  ['shared-info', () => changed('pv', RecordType.SHARED_INFO, cut)],
  ['tsc-info', () => changed('hvm', RecordType.X86_TSC_INFO, longer)],
  ['tsc-info.reserved', () => changed('hvm', RecordType.X86_TSC_INFO, (body) => patched(body, 23, 1))],
  ['hvm-context', () => changed('hvm', HVM_CONTEXT, () => zeroes(0))],
  ['hvm-params', () => changed('hvm', HVM_PARAMS, (body) => patched(body, 0, 99))],
  ['hvm-params', () => changed('hvm', HVM_PARAMS, () => zeroes(4))],
  ['hvm-params.reserved', () => changed('hvm', HVM_PARAMS, (body) => patched(body, 4, 1))],
  ['hvm-params.first', () => libxcStream('hvm', realParts('hvm'))],
  ['toolstack', () => inserted('hvm', END, part(RecordType.TOOLSTACK, zeroes(5)))],
  ['cpuid-policy', () => changed('hvm', RecordType.X86_CPUID_POLICY, cut)],
  ['cpuid-policy', () => changed('hvm', RecordType.X86_CPUID_POLICY, () => zeroes(0))],
  ['msr-policy', () => changed('pv', RecordType.X86_MSR_POLICY, longer)],
  ['disks', () => inserted('hvm', PAGE_DATA, part(RecordType.DISKS, zeroes(8)))],
  ['disks.place', () => inserted('hvm', PAGE_DATA, disks, disks)],
  ['disks.place', () => inserted('hvm', END, disks)],
  ['disks.place', () => inserted('hvm', PAGE_DATA, diskWrites(0, 0))],
  ['static-data.end', () => inserted('hvm', STATIC_DATA_END, disks)],
  ['disk-writes', () => inserted('hvm', PAGE_DATA, disks, part(RecordType.DISK_WRITES, zeroes(24)))],
  ['disk-writes.range', () => inserted('hvm', PAGE_DATA, disks, diskWrites(1, 0))],
  ['disk-writes.range', () => inserted('hvm', PAGE_DATA, disks, diskWrites(0, 513))],
  [
    'dirty-pfn-list',
    () => concatenate([back, encodeRecord(RecordType.CHECKPOINT_DIRTY_PFN_LIST, zeroes(9))]),
  ],
  [
    'dirty-pfn-list.direction',
    () => inserted('hvm', END, part(RecordType.CHECKPOINT_DIRTY_PFN_LIST, zeroes(8))),
  ],
  ['back-channel', () => concatenate([back, encodeRecord(RecordType.X86_TSC_INFO, zeroes(24))])],
];
