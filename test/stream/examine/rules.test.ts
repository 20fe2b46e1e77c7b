// Each rule of the specifications, broken once on purpose, gives exactly that finding, where it was broken.

import { expect } from 'chai';
import { RULES } from '../../../src/stream/examine/rules.js';
import { RecordType } from '../../../src/stream/format.js';
import { concatenate, encodeImageHeader, encodeRecord, writePfnEntry } from '../../../src/stream/writer.js';
import { pageDataBody } from '../streams.js';
import {
  cases,
  patched,
  changed,
  inserted,
  without,
  libxl,
  zeroes,
  cut,
  emulatorState,
  withEmulator,
  noEnd,
} from './rule-cases.js';
import {
  checkpointed,
  judged,
  libxcStream,
  libxlEnd,
  libxlOpening,
  octetsOf,
  part,
  soundParts,
  xlHeader,
} from './support.js';

const { END, PAGE_DATA, CHECKPOINT, STATIC_DATA_END, HVM_CONTEXT } = RecordType;

describe('rules', () => {
  for (const guest of ['pv', 'hvm'] as const) {
    it(`nothing is found in a sound ${guest} stream, at any layer`, () => {
      const bare = libxcStream(guest);
      for (const sound of [bare, libxl(bare, libxlEnd), concatenate([xlHeader, libxl(bare, libxlEnd)])]) {
        expect(judged(sound).findings).to.deep.equal([]);
      }
      const ended = concatenate([checkpointed(guest, 'libxl'), encodeRecord(END), libxlEnd]);
      expect(judged(ended).findings).to.deep.equal([]);
    });
  }

  it('nothing is found in the stream of a domain with a device model', () => {
    const plain = libxl(without('hvm', HVM_CONTEXT), emulatorState, libxlEnd);
    const ended = concatenate([withEmulator([emulatorState], []), encodeRecord(END), libxlEnd]);
    for (const sound of [plain, concatenate([xlHeader, plain]), ended]) {
      expect(judged(sound).findings).to.deep.equal([]);
    }
    const open = withEmulator([emulatorState], [emulatorState]);
    expect(judged(open).findings.map(({ rule }) => rule)).to.deep.equal([noEnd]);
    // Cut where the state should come, nothing is missing but the rest.
    const cutShort = libxl(without('hvm', HVM_CONTEXT, END), encodeRecord(CHECKPOINT));
    expect(judged(cutShort).findings.map(({ rule }) => rule)).to.deep.equal(['truncated']);
  });

  it('what is missing is told where the checkpoint ends that lacks it', () => {
    const octets = withEmulator([], [emulatorState]);
    const { findings } = judged(octets);
    const offset = libxlOpening.length + without('hvm', HVM_CONTEXT, END).length;
    expect(findings[0]).to.include({ rule: 'missing', record: 'CHECKPOINT', offset });
    expect(findings.map(({ rule }) => rule)).to.deep.equal(['missing', noEnd]);
  });

  it('a version-2 stream has no static data', () => {
    const { X86_CPUID_POLICY, X86_MSR_POLICY } = RecordType;
    const old = without('pv', STATIC_DATA_END, X86_CPUID_POLICY, X86_MSR_POLICY);
    expect(judged(patched(old, 15, 2)).findings).to.deep.equal([]);
  });

  it('each rule has a case', () => {
    expect(new Set(cases.map(([rule]) => rule))).to.deep.equal(new Set(Object.keys(RULES)));
  });

  cases.forEach(([rule, stream, others = []], index) => {
    it(`${rule} (${index})`, () => {
      const { findings } = judged(stream());
      const rules = findings.map((finding) => finding.rule);
      expect(rules, JSON.stringify(findings)).to.deep.equal([rule, ...others]);
      expect(findings[0]?.severity).to.equal(RULES[rule].severity);
    });
  });

  it('a finding says where', () => {
    const octets = changed('pv', RecordType.SHARED_INFO, cut);
    const offset =
      40 +
      octetsOf(
        soundParts('pv').slice(
          0,
          soundParts('pv').findIndex(({ type }) => type === RecordType.SHARED_INFO),
        ),
      ).length;
    expect(judged(octets).findings).to.deep.include({
      rule: 'shared-info',
      severity: 'error',
      offset,
      record: 'SHARED_INFO',
      message: 'Shared info record of another length than 4096 octets (it has 4095 octets)',
    });
    const inLayers = judged(concatenate([xlHeader, libxl(octets, libxlEnd)])).findings;
    expect(inLayers[0]?.offset).to.equal(offset + xlHeader.length + libxlOpening.length);
  });

  it('entries that break a rule are told once a record', () => {
    const body = pageDataBody([
      [1, 0xf],
      [2, 0xf],
      [3, 0xf],
    ]);
    writePfnEntry(body, 8, 1, 5);
    writePfnEntry(body, 16, 2, 6);
    const octets = inserted('pv', END, part(PAGE_DATA, body), part(PAGE_DATA, body));
    expect(judged(octets).findings.map(({ rule }) => rule)).to.deep.equal([
      'page-data.pfn-type',
      'page-data.pfn-type',
    ]);
  });

  it('the image header of a future version is told without its records', () => {
    const future = concatenate([encodeImageHeader(9), zeroes(500)]);
    const { findings, end } = judged(future);
    expect(findings.map(({ rule, offset }) => [rule, offset])).to.deep.equal([['version', 12]]);
    expect(end.kind).to.equal('stopped');
  });
});
