// Files that hold a stream among other things, and files that hold none: told by content. Layouts of QEMU's
// saves: libvirt's src/qemu/qemu_saveimage.h, src/ch/ch_saveimage.c; what is wrapped here is what real Xen wrote.

import { expect } from 'chai';
import fc from 'fast-check';
import { gzipSync } from 'node:zlib';
import { RULES } from '../../../src/stream/examine/rules.js';
import { readFixture } from '../../fixtures/xen.js';
import { checkpointed, judged, libxcStream, libxlEnd, libxlOpening, surveyed } from './support.js';
import { libvirtFile, xenopsdFile, xenopsdHeader } from './wrapped-files.js';

function rulesOf(octets: Uint8Array): string[] {
  return judged(octets).findings.map(({ rule, message }) => `${rule}: ${message}`);
}

describe('wrappers', () => {
  const libxl = Buffer.concat([libxlOpening, libxcStream('hvm'), libxlEnd]);

  it("libvirt's: the stream inside, with offsets in the file", () => {
    const file = libvirtFile(libxl);
    const { findings, end } = judged(file);
    expect(findings).to.deep.equal([]);
    expect(end).to.deep.include({
      kind: 'ended',
      wrapper: 'libvirt',
      outermost: 'libxl',
      offset: file.length,
      streamEnd: file.length,
    });
    const shift = file.length - libxl.length;
    const { survey, records } = surveyed(file);
    expect(survey).to.deep.include({ wrapper: 'libvirt', layers: ['libxl', 'libxc'], trailingBytes: 0 });
    expect(records[0]).to.deep.equal({
      layer: 'libvirt',
      name: 'header',
      type: null,
      offset: 0,
      length: shift,
    });
    expect(records.slice(1)).to.deep.equal(
      surveyed(libxl).records.map((record) => ({ ...record, offset: record.offset + shift })),
    );
  });

  it("xenopsd's: the stream inside, and what stands around it", () => {
    for (const name of ['hvm-save.libxc', 'pv-save.libxc']) {
      const stream = readFixture(name);
      const file = xenopsdFile(stream);
      const { findings, end } = judged(file);
      const shift = file.indexOf(Buffer.from('ffffffffffffffff', 'hex'));
      expect(findings).to.deep.equal(
        judged(stream).findings.map((finding) => ({ ...finding, offset: finding.offset + shift })),
      );
      expect(end).to.deep.include({
        kind: 'ended',
        wrapper: 'xenopsd',
        outermost: 'libxc',
        offset: file.length,
        streamEnd: shift + stream.length,
      });
      const { records } = surveyed(file);
      const own = records.filter(({ layer }) => layer === 'xenopsd').map((record) => record.name);
      expect(own).to.deep.equal(['signature', 'Xenops', 'Libxc', 'Varstored', 'Qemu_trad', 'End_of_image']);
    }
  });

  it('cut anywhere, they are truncated; the stream that is whole is known to be', () => {
    const stream = libxcStream('hvm');
    const file = xenopsdFile(stream);
    const streamEnd = file.indexOf('VARS') - 16;
    for (let cut = 8; cut < file.length; cut += cut > streamEnd - 40 ? 1 : 211) {
      const { findings, end } = judged(file.subarray(0, cut));
      expect(findings.map(({ rule }) => rule)).to.deep.equal(['truncated']);
      expect(end.streamEnd).to.equal(cut < streamEnd ? null : streamEnd);
    }
    for (let cut = 8; cut < 100; cut += 1) {
      expect(rulesOf(libvirtFile(libxl).subarray(0, cut)).join()).to.match(/^truncated/);
    }
  });

  it('checkpoints in them are counted', () => {
    const file = libvirtFile(checkpointed('pv', 'libxl'));
    expect(judged(file).end.checkpoint).to.deep.equal({ number: 3, end: file.length });
  });

  const wrong: readonly (readonly [string, () => Uint8Array, RegExp])[] = [
    ['libvirt of the future', () => libvirtFile(libxl, 3), /^version: .*version 3, known are 1 and 2/],
    ['cloud-hypervisor', () => libvirtFile(new Uint8Array(0), 900, ''), /^version: .*cloud-hypervisor/],
    [
      'libvirt with a legacy stream',
      () => libvirtFile(Buffer.from('0000040000000000ffffffff', 'hex'), 1),
      /^legacy/,
    ],
    ['libvirt, then nothing of it', () => Buffer.from('libvirt-xml of mine'.padEnd(99)), /^not-a-stream/],
    [
      'libvirt around libxc',
      () => libvirtFile(libxcStream('pv')),
      /^wrapper: libvirt wraps .* libxl, not of libxc/,
    ],
    ['libvirt in libvirt', () => libvirtFile(libvirtFile(libxl)), /^not-a-stream/],
    [
      'libvirt around gzip',
      () => libvirtFile(gzipSync(libxl)),
      /^not-a-stream: wrapped by libvirt: .*gzip -dc/,
    ],
    [
      'XenServer 6.2',
      () => Buffer.from('XenSavedDomain\n'.padEnd(99, '\0')),
      /^legacy: .*convert-legacy-stream/,
    ],
    ['xenopsd, then nothing of it', () => Buffer.from('XenSavedDomv3-\n'.padEnd(99)), /^not-a-stream/],
    [
      'xenopsd without a stream',
      () => Buffer.concat([Buffer.from('XenSavedDomv2-\n'), xenopsdHeader(0xffff, 0)]),
      /^wrapper: .*without a stream/,
    ],
    [
      'a record that nobody knows',
      () => Buffer.concat([Buffer.from('XenSavedDomv2-\n'), xenopsdHeader(0x1234, 0)]),
      /^wrapper: .*unknown type 0x1234/,
    ],
    [
      'a virtual GPU before the stream',
      () => Buffer.concat([Buffer.from('XenSavedDomv2-\n'), xenopsdHeader(0x0f10, 0)]),
      /^wrapper: .*virtual GPU/,
    ],
  ];
  for (const [name, file, expected] of wrong) {
    it(name, () => {
      expect(rulesOf(file()).join('\n')).to.match(expected);
    });
  }
});

describe('other files', () => {
  const padded = (begin: string, length = 600): Buffer =>
    Buffer.concat([Buffer.from(begin, 'latin1'), Buffer.alloc(length, 0xa5)]);
  const at = (offset: number, octets: string): Buffer => {
    const file = Buffer.alloc(1024, 0xa5);
    file.write(octets, offset, 'latin1');
    return file;
  };
  const cases: readonly (readonly [string, Uint8Array, RegExp])[] = [
    [
      'gzip, as gzip -n writes it: no time, no flags',
      gzipSync(Buffer.alloc(5000, 1)),
      /gzip: gzip -dc FILE \| npx/,
    ],
    ['xz', padded('\xfd7zXZ\0'), /xz: xz -dc FILE \| npx romulus verify -/],
    ['zstd', padded('\x28\xb5\x2f\xfd'), /zstd -dc/],
    ['bzip2', padded('BZh9'), /bzip2 -dc/],
    ['lz4', padded('\x04\x22\x4d\x18'), /lz4 -dc/],
    ['tar', at(257, 'ustar'), /tar -xOf/],
    ['qcow2', padded('QFI\xfb\0\0\0\x03'), /qcow2 image, version 3/],
    ['VMDK', padded('KDMV'), /VMDK/],
    ['a core', padded('\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0'), /core dump.*xl dump-core/],
    ['a program', padded('\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0'), /program or library/],
    ['QEMU migration', padded('QEVM\0\0\0\x03'), /QEMU's, version 3/],
    ['libvirt QEMU', padded('LibvirtQemudSave\x02\0\0\0'), /QEMU driver.*no stream of Xen/],
    ['libvirt QEMU, not finished', padded('LibvirtQemudPart\x02\0\0\0'), /not finished/],
    ['zeros', Buffer.alloc(4096), /zeros/],
    ['a boot sector', at(510, '\x55\xaa'), /boot sector/],
    ['XML', Buffer.from('<?xml version="1.0"?>\n<domain/>'), /XML/],
    ['JSON', Buffer.from('{ "c_info": {} }'), /JSON/],
    ['YAML', Buffer.from('# mine\nlisten:\n  port: 1\n'), /YAML/],
    ['text', Buffer.from('Ein Brief, über nichts.\n'), /is text/],
    ['nothing', Buffer.alloc(0), /is empty/],
    ['little', Buffer.from('abc'), /too short.*3 octets/],
    ['anything', Buffer.alloc(600, 0xa5), /none of xl, libxl and libxc/],
  ];
  for (const [name, file, expected] of cases) {
    it(name, () => {
      const { findings, end } = judged(file);
      expect(findings).to.have.lengthOf(1);
      expect(findings[0]).to.include({ rule: 'not-a-stream', severity: 'unreadable', offset: 0 });
      expect(findings[0]?.message).to.match(expected);
      expect(end).to.deep.include({ kind: 'stopped', outermost: null });
    });
  }

  it('random beginnings and random wrappers end in findings', () => {
    const magics = [
      ...cases.map(([, file]) => file),
      libvirtFile(new Uint8Array(0)),
      xenopsdFile(new Uint8Array(0)),
    ];
    const stream = libxcStream('pv');
    const anything = fc.oneof(
      fc.uint8Array({ maxLength: 700 }),
      fc
        .tuple(fc.constantFrom(...magics), fc.nat(700), fc.uint8Array({ maxLength: 100 }))
        .map(([magic, length, rest]) => Buffer.concat([magic.subarray(0, length), rest])),
      fc
        .tuple(
          fc.constantFrom(libvirtFile, xenopsdFile),
          fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { maxLength: 4 }),
        )
        .map(([wrap, changes]) => {
          const file = wrap(stream);
          for (const [place, octet] of changes) file[place] = octet;
          return file;
        }),
    );
    fc.assert(
      fc.property(anything, (octets) => {
        const { findings, end } = judged(octets);
        surveyed(octets);
        const sound = findings.every(({ rule }) => !['error', 'unreadable'].includes(RULES[rule].severity));
        expect(end.kind === 'stopped' && sound).to.equal(false);
        expect(end.offset).to.be.at.most(octets.length);
      }),
      { numRuns: 3000 },
    );
  });
});
