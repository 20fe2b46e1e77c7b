// The disks in QEMU's arguments that are replicated.

import { expect } from 'chai';
import { HypervisorError } from '../../../../src/hypervisor/port.js';
import {
  replicatedDisks,
  withSteadyFiles,
  type DrivesConfig,
} from '../../../../src/hypervisor/qemu/disks/drives.js';

const found = (words: readonly string[], more: DrivesConfig = {}) =>
  replicatedDisks({ arguments: words, ...more }).map(({ id, file, format }) => `${id} ${format} ${file}`);

describe('qemu disks: the drives of a configuration', () => {
  const cases: readonly (readonly [string, readonly string[], readonly string[]])[] = [
    ['a drive', ['-drive', 'file=/a.img,format=raw,id=disk,if=virtio'], ['disk raw /a.img']],
    ['its long form', ['--drive', 'driver=qcow2,file.filename=/a,file.driver=file,id=d'], ['d qcow2 /a']],
    ['commas in a name', ['-drive', 'id=d,format=raw,file=/a,,b,,,,c'], ['d raw /a,b,,c']],
    [
      'what is written to by nobody, or for nobody',
      [
        ...['-drive', 'file=/a,format=raw,id=a,readonly=on', '-drive', 'file=/b,format=raw,id=b,snapshot=on'],
        ...['-drive', 'file=/c,format=raw,id=c,media=cdrom', '-drive', 'file=/d,format=raw,id=d,if=pflash'],
      ],
      [],
    ],
    [
      'what cannot be told, or is no file',
      [
        ...['-drive', 'file=/a,format=raw', '-drive', 'file=/b,id=b'],
        ...['-drive', 'file=nbd:host:1,format=raw,id=c', '-drive', 'if=none,id=d'],
        ...['-blockdev', 'driver=throttle,node-name=e,file=f', '-blockdev', 'driver=raw,node-name=f,file=g'],
      ],
      [],
    ],
    ['a node', ['-blockdev', 'driver=qcow2,node-name=n,file.driver=file,file.filename=/a'], ['n qcow2 /a']],
    [
      'a node by the name of its device, its file a node of its own, in JSON',
      [
        ...['-blockdev', '{"driver": "file", "node-name": "f", "filename": "/a,b"}'],
        ...['-blockdev', '{"driver": "qcow2", "node-name": "n", "file": "f"}'],
        ...['-device', 'virtio-blk-pci,drive=n,id=root'],
      ],
      ['root qcow2 /a,b'],
    ],
    [
      'nodes in the order of their devices, behind drives',
      [
        ...['-blockdev', 'driver=file,node-name=a,filename=/a', '-device', 'scsi-hd,drive=b,id=two'],
        ...['-blockdev', 'driver=file,node-name=b,filename=/b', '-device', 'scsi-hd,drive=a,id=one'],
        ...['-drive', 'file=/c,format=raw,id=c'],
      ],
      ['c raw /c', 'two raw /b', 'one raw /a'],
    ],
    [
      'a block device, without a format',
      ['-blockdev', 'driver=host_device,node-name=n,filename=/dev/vg/lv'],
      ['n raw /dev/vg/lv'],
    ],
  ];
  for (const [what, words, expected] of cases) {
    it(what, () => expect(found(words)).to.deep.equal(expected));
  }

  it('but for those that are shared', () => {
    const words = ['-drive', 'file=/a,format=raw,id=a', '-drive', 'file=/b,format=raw,id=b'];
    expect(found(words, { sharedDisks: ['a'] })).to.deep.equal(['b raw /b']);
  });

  it('with what is said of them', () => {
    const b = { durability: 'relaxed' as const, bytes: 512, preallocate: true };
    const words = ['-drive', 'file=a,format=raw,id=constructor', '-drive', 'file=/b,format=raw,id=b'];
    const disks = replicatedDisks({ arguments: words, disks: { b } });
    expect(disks.map(({ options }) => options)).to.deep.equal([
      { durability: 'strict', preallocate: false },
      b,
    ]);
    expect(disks[0]?.file).to.equal(`${process.cwd()}/a`);
  });

  const refusals: readonly (readonly [string, DrivesConfig, string])[] = [
    ['a name that no disk has', { disks: { x: { durability: 'strict', preallocate: false } } }, 'no disk x'],
    [
      'a file twice',
      { arguments: ['-drive', 'file=/a,format=raw,id=a', '-drive', 'file=/a,format=raw,id=b'] },
      '/a',
    ],
    ['what is no JSON', { arguments: ['-blockdev', '{"driver":'] }, 'not JSON'],
  ];
  for (const [what, config, text] of refusals) {
    it(`refuses ${what}`, () => {
      expect(() => replicatedDisks(config))
        .to.throw(HypervisorError, text)
        .with.property('code', 'BAD_CONFIGURATION');
    });
  }

  it('keep their files open, whatever becomes of a mirror; others are as they are given', () => {
    const words = [
      ...['-drive', 'id=a,file=/a.img,format=raw', '--drive', 'file=/b.qcow2,format=qcow2,id=b'],
      ...['-drive', 'id=c,file=/c.img,format=raw,auto-read-only=on', '-drive', 'id=d,file=/d.img,format=raw'],
      ...['-drive', 'id=e,file=/e.iso,format=raw,media=cdrom', '-device', 'virtio-blk-pci,drive=a'],
    ];
    const steady = withSteadyFiles({ arguments: words, sharedDisks: ['d'] });
    expect(steady).to.deep.equal(
      words.map((word, at) => (at === 1 || at === 3 ? `${word},auto-read-only=off` : word)),
    );
  });
});
