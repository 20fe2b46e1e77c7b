// What the tests of walks share: findings of octets, small streams of real records, taken apart and put together.

import { Judge } from '../../../src/stream/examine/judge.js';
import type { Finding } from '../../../src/stream/examine/rules.js';
import { type SurveyedRecord, Surveyor, type Survey } from '../../../src/stream/examine/survey.js';
import { type StreamVisitor, StreamWalker, type WalkEnd } from '../../../src/stream/examine/walk.js';
import { RecordType } from '../../../src/stream/format.js';
import { LibxlRecordType, encodeLibxlHeader } from '../../../src/stream/libxl.js';
import { concatenate, encodeHeaders, encodeRecord } from '../../../src/stream/writer.js';
import { encodeXlHeader, xlHeaderOf } from '../../../src/stream/xl.js';
import { readFixture } from '../../fixtures/xen.js';
import { readAll, shrunk } from '../streams.js';

const NOTHING = new Uint8Array(0);

/** Walks octets that are in memory. */
export function walkOctets(octets: Uint8Array, visitor: StreamVisitor): WalkEnd {
  const walk = new StreamWalker(visitor).walk();
  let at = 0;
  let step = walk.next();
  while (step.done !== true) {
    const length = Math.min(step.value.length, octets.length - at);
    const taken = step.value.kind === 'take' ? octets.subarray(at, at + length) : NOTHING;
    at += length;
    step = walk.next({ octets: taken, length });
  }
  return step.value;
}

export function judged(octets: Uint8Array): { findings: Finding[]; end: WalkEnd } {
  const findings: Finding[] = [];
  const judge = new Judge((finding) => findings.push(finding));
  const end = walkOctets(octets, judge);
  judge.ended(end, octets.length);
  return { findings, end };
}

export function surveyed(octets: Uint8Array): { survey: Survey; records: SurveyedRecord[] } {
  const records: SurveyedRecord[] = [];
  const surveyor = new Surveyor({ record: (record) => records.push(record) });
  const end = walkOctets(octets, surveyor);
  return { survey: surveyor.result(end, octets.length), records };
}

/** A record before it is written. */
export interface Part {
  readonly type: number;
  readonly body: Uint8Array;
}

export function part(type: number, body: Uint8Array | number[] = []): Part {
  return { type, body: Uint8Array.from(body) };
}

/** The records of a small stream, as real Xen wrote them. */
export function realParts(guest: 'pv' | 'hvm'): Part[] {
  return readAll(shrunk(readFixture(`${guest}-save.libxc`), 2)).map(({ type, body }) => ({ type, body }));
}

/** The same with HVM_PARAMS before HVM_CONTEXT: nothing can be said against it. */
export function soundParts(guest: 'pv' | 'hvm'): Part[] {
  const parts = realParts(guest);
  const params = parts.filter(({ type }) => type === RecordType.HVM_PARAMS);
  const others = parts.filter(({ type }) => type !== RecordType.HVM_PARAMS);
  return [...others.slice(0, -2), ...params, ...others.slice(-2)];
}

export function headersOf(guest: 'pv' | 'hvm'): Uint8Array {
  return encodeHeaders({ domainType: guest === 'pv' ? 1 : 2, xenMajor: 4, xenMinor: 17 });
}

export function octetsOf(parts: readonly Part[]): Uint8Array {
  return concatenate(parts.map(({ type, body }) => encodeRecord(type, body)));
}

export function libxcStream(guest: 'pv' | 'hvm', parts: readonly Part[] = soundParts(guest)): Uint8Array {
  return concatenate([headersOf(guest), octetsOf(parts)]);
}

export const libxlOpening = concatenate([encodeLibxlHeader(), encodeRecord(LibxlRecordType.LIBXC_CONTEXT)]);
export const libxlEnd = encodeRecord(LibxlRecordType.END);
export const checkpointEnd = encodeRecord(LibxlRecordType.CHECKPOINT_END);
export const xlHeader = encodeXlHeader(xlHeaderOf('{"c_info":{"name":"small"},"b_info":{}}'));

/** Three checkpoints: the parts, and twice more the pages and what comes after them. */
export function checkpointed(guest: 'pv' | 'hvm', layer: 'libxc' | 'libxl' | 'xl'): Uint8Array {
  const parts = soundParts(guest).slice(0, -1);
  const first = parts.findIndex(({ type }) => type === RecordType.PAGE_DATA);
  const ending = concatenate([
    encodeRecord(RecordType.CHECKPOINT),
    layer === 'libxc' ? new Uint8Array(0) : checkpointEnd,
  ]);
  const later = octetsOf(parts.slice(first + 1));
  return concatenate([
    layer === 'xl' ? xlHeader : new Uint8Array(0),
    layer === 'libxc' ? new Uint8Array(0) : libxlOpening,
    headersOf(guest),
    octetsOf(parts),
    ending,
    later,
    ending,
    later,
    ending,
  ]);
}
