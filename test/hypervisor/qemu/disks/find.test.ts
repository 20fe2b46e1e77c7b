// Which disks are replicated, under which names, and which are refused, by name and reason; and those that are added later.

import { existsSync, rmSync } from 'node:fs';
import { firstValueFrom } from 'rxjs';
import { expect } from 'chai';
import { judgeDisks, refuseUsed, type FoundDisk } from '../../../../src/hypervisor/qemu/disks/find.js';
import { attachQemuSource, openQemuSource, type QemuConfig } from '../../../../src/hypervisor/qemu/index.js';
import type { HypervisorError } from '../../../../src/hypervisor/port.js';
import { Cleanup } from '../../../support/cleanup.js';
import { expectCode } from '../../support.js';
import { StrangeQemu } from '../stranger.js';
import { needQemu, tickGuest } from '../support.js';
import { MIB, needQemuTools, qemuImg, rawImage } from './support.js';

const TRIES = 20;

describe('qemu disks: which are replicated', function () {
  this.timeout(60_000);
  const cleanup = new Cleanup();
  let directory = '';
  before(async function () {
    await needQemu(this);
    await needQemuTools(this);
  });
  beforeEach(async () => (directory = await cleanup.directory()));
  afterEach(() => cleanup.run());

  const image = (name: string, bytes = MIB) => rawImage(`${directory}/${name}`, bytes);
  const open = async (args: readonly string[], more: Partial<QemuConfig> = {}) => {
    const source = await openQemuSource(tickGuest({ dirty: 'compare', arguments: args, ...more }));
    cleanup.add(() => source.destroy());
    return source;
  };

  it('by their own names, whatever they are plugged into', async () => {
    const [a, b, c, d, e] = await Promise.all(['a', 'b', 'c', 'd', 'e'].map((name) => image(name)));
    const luks = `${directory}/luks`;
    const key = ['--object', 'secret,id=key,data=x'];
    // It measures how long a key takes to derive, by a clock that may not have moved.
    for (let tries = 1; !existsSync(luks); tries++) {
      const made = qemuImg(
        'create',
        '-q',
        '-f',
        'luks',
        ...key,
        '-o',
        'key-secret=key,iter-time=10',
        luks,
        '1M',
      );
      await made.catch((error: unknown) => {
        rmSync(luks, { force: true });
        if (tries === TRIES) throw error;
      });
    }
    const source = await open(
      [
        ...['-drive', `if=virtio,file=${a},format=raw`],
        ...[
          '-drive',
          `if=none,id=drive,file=${b},format=raw`,
          '-device',
          'virtio-blk-pci,drive=drive,id=own',
        ],
        ...['-blockdev', `driver=raw,node-name=node1,file.driver=file,file.filename=${c}`],
        ...['-device', 'virtio-scsi-pci', '-device', 'scsi-hd,drive=node1,id=device'],
        ...[
          '-blockdev',
          `driver=file,node-name=node2,filename=${d}`,
          '-device',
          'virtio-blk-pci,drive=node2',
        ],
        ...[
          '-drive',
          `if=none,id=both,file=${e},format=raw`,
          '-device',
          'virtio-blk-pci,drive=both,id=known',
        ],
        ...['-drive', `if=virtio,id=ro,file=${e},format=raw,readonly=on,file.locking=off`],
        ...['-object', 'secret,id=key,data=x'],
        ...['-drive', `if=virtio,id=luks,file=${luks},format=luks,key-secret=key`],
      ],
      { sharedDisks: ['known'] },
    );
    const ids = ['virtio0', 'drive', 'luks', 'device', 'node2'];
    expect(source.disks?.disks.map(({ id }) => id)).to.have.members(ids);
    expect(source.disks?.disks.every(({ bytes }) => bytes === MIB)).to.equal(true);
    expect(source.notes.join('\n')).to.include('luks is encrypted: what is replicated of it is plaintext');
    const { inventory } = await source.info();
    expect(inventory?.['disks']?.split('\n')).to.have.members(ids.map((id) => `${id} ${MIB}`));
  });

  it('not at all, if there are none', async () => {
    const source = await open(['-drive', `if=virtio,file=${await image('a')},format=raw,readonly=on`]);
    expect(source.disks).to.equal(undefined);
    expect((await source.info()).inventory?.['disks']).to.equal('');
  });

  const plain = (name: string) => `if=none,id=${name},format=raw,file=`;
  const refusals: Record<
    string,
    [string, RegExp, (file: (name: string) => Promise<string>) => Promise<string[]>]
  > = {
    'a writable flash': [
      'pflash0',
      /memory block/,
      async () => ['-drive', `if=pflash,format=raw,file=${await image('flash', 4 * MIB)}`],
    ],
    'a temporary disk': [
      'gone',
      /snapshot=on/,
      async (file) => [
        '-drive',
        `${plain('gone')}${await file('a')},snapshot=on`,
        '-device',
        'virtio-blk,drive=gone',
      ],
    ],
    'a floppy': [
      'floppy',
      /medium/,
      async () => [
        ...['-device', 'isa-fdc', '-drive', `${plain('floppy')}${await image('floppy', 1_474_560)}`],
        ...['-device', 'floppy,drive=floppy'],
      ],
    ],
    'a disk of two devices': [
      'node',
      /two devices/,
      async (file) => [
        ...['-blockdev', `driver=file,node-name=node,filename=${await file('a')}`],
        ...['-device', 'virtio-blk,drive=node,share-rw=on', '-device', 'virtio-blk,drive=node,share-rw=on'],
      ],
    ],
    'a name that two have': [
      'one',
      /another disk/,
      async (file) => [
        ...['-drive', `${plain('one')}${await file('a')}`, '-device', 'virtio-blk,drive=one'],
        ...['-blockdev', `driver=file,node-name=two,filename=${await file('b')}`],
        ...['-device', 'virtio-blk,drive=two,id=one'],
      ],
    ],
  };
  for (const [what, [disk, reason, args]] of Object.entries(refusals)) {
    it(`${what} is refused`, async () => {
      const config = tickGuest({ dirty: 'compare', arguments: await args(image) });
      expectRefusal(await expectCode(openQemuSource(config), 'BAD_CONFIGURATION', disk), disk, reason);
    });
  }

  function expectRefusal({ facts }: HypervisorError, disk: string, reason: RegExp): void {
    expect(facts['disk']).to.equal(disk);
    expect(facts['reason']).to.match(reason);
  }

  it('a disk that somebody else copies or exports is refused, and left as it is', async () => {
    const qemu = await StrangeQemu.start([
      ...['-blockdev', `driver=file,node-name=node,filename=${await image('a')}`],
      ...['-device', 'virtio-blk,drive=node', '-blockdev', `driver=null-co,size=${MIB},node-name=elsewhere`],
      ...['-device', 'virtio-rng-pci'],
    ]);
    cleanup.add(() => qemu.kill());
    const refused = async (reason: RegExp) => {
      const attaching = attachQemuSource({ name: 'web', monitor: qemu.monitor });
      expectRefusal(await expectCode(attaching, 'BAD_CONFIGURATION'), 'node', reason);
    };
    const mirror = { 'job-id': 'theirs', device: 'node', target: 'elsewhere', sync: 'none' };
    await qemu.ask((qmp) => qmp.execute('blockdev-mirror', mirror));
    await refused(/block job .*theirs/);
    await qemu.ask((qmp) => qmp.execute('block-job-cancel', { device: 'theirs', force: true }));
    const at = { type: 'unix', data: { path: `${directory}/nbd` } };
    await qemu.ask((qmp) => qmp.execute('nbd-server-start', { addr: at }));
    await qemu.ask((qmp) => qmp.execute('block-export-add', { type: 'nbd', id: 'out', 'node-name': 'node' }));
    await refused(/exported \(out\)/);
    await qemu.ask((qmp) => qmp.execute('block-export-del', { id: 'out', mode: 'hard' }));
    const source = await attachQemuSource({ name: 'web', monitor: qemu.monitor });
    await source.disks?.attach();
    await expectCode(
      source.disks?.sums(0, 0, 1) ?? Promise.resolve(),
      'BAD_CONFIGURATION',
      'nbd-server-stop',
    );
    await source.destroy();
    expect(await qemu.isRunning()).to.equal(true);
  });

  it('a disk that is plugged in later is noticed: nobody replicates it', async () => {
    const source = await open([
      ...['-drive', `if=virtio,id=disk,format=raw,file=${await image('a')}`],
      ...['-device', 'pcie-root-port,id=port0,chassis=1'],
    ]);
    await source.start();
    await source.disks?.attach();
    const changed = firstValueFrom(source.machineChanges$);
    const { qmp } = source.machine;
    await qmp.execute('blockdev-add', { driver: 'file', 'node-name': 'more', filename: await image('b') });
    await qmp.execute('device_add', { driver: 'virtio-blk-pci', drive: 'more', id: 'more', bus: 'port0' });
    const { message, inventory } = await changed;
    expect(message).to.include(`disks that are not replicated: more ${MIB}`);
    expect(inventory['disks'], 'as it is while it is mirrored').to.equal(`disk ${MIB}`);
  });

  describe('of what is not to be had here', () => {
    const inserted = {
      ...{ ro: false, 'node-name': 'node', drv: 'host_device', encrypted: false },
      image: { 'virtual-size': 4096, filename: '/dev/sda' },
    };
    const disk = { device: 'sda', qdev: '/machine/peripheral/pass', removable: false, inserted };
    const judge = (kind: string, tree = '', block = [disk]) =>
      judgeDisks({ block, kinds: block.map(() => kind), tree }, []);

    it('a device that goes past the block layer is refused', () => {
      for (const kind of ['scsi-block', 'scsi-generic']) {
        expect(() => judge(kind))
          .to.throw()
          .with.property('facts')
          .that.has.property('disk', 'sda');
      }
      expect(judge('scsi-hd').disks).to.have.length(1);
      for (const [type, id] of [
        ['vhost-user-blk-pci', 'fast'],
        ['vhost-scsi-pci', ''],
        ['vhost-user-scsi-pci', 'x'],
      ]) {
        const tree = `bus: main\r\n      dev: ${String(type)}, id "${String(id)}"\r\n        addr = 03.0`;
        expect(() => judge('scsi-hd', tree))
          .to.throw(/past QEMU’s block layer/)
          .with.property('facts')
          .that.has.property('disk', id || type);
      }
    });

    it('a disk of no whole sectors, or whose name no host could have, is refused', () => {
      const odd = { ...disk, inserted: { ...inserted, image: { 'virtual-size': 1000, filename: 'x' } } };
      expect(() => judge('scsi-hd', '', [odd])).to.throw(/sectors/);
      const long = { ...disk, device: 'x'.repeat(65), qdev: '/machine/peripheral-anon/device[0]' };
      const nameless = { ...long, inserted: { ...inserted, 'node-name': '#block1' } };
      expect(() => judge('scsi-hd', '', [nameless])).to.throw(/no name/);
      expect(judge('scsi-hd', '', [long]).disks[0]?.id).to.equal('node');
    });

    it('a disk behind our filter is the one that was there', () => {
      const known: FoundDisk[] = [{ id: 'node', bytes: 4096, node: 'node', format: 'raw', drive: '' }];
      const hidden = {
        ...disk,
        device: '',
        qdev: '',
        inserted: { ...inserted, 'node-name': 'romulus-filter-0' },
      };
      const answers = { block: [hidden], kinds: [''], tree: '' };
      expect(judgeDisks(answers, [], known).disks[0]).to.include({ id: 'node', node: 'node' });
      expect(() => judgeDisks(answers, [])).to.throw(/no name/);
    });

    it('what is ours is nobody else’s', () => {
      const known: FoundDisk[] = [{ id: 'node', bytes: 4096, node: 'node', format: 'raw', drive: '' }];
      const ours = [{ id: 'romulus-reader-0', 'node-name': 'node' }];
      expect(() => refuseUsed(known, [{ device: 'romulus-mirror-0' }], ours)).to.not.throw();
      expect(() => refuseUsed(known, [{ device: 'other' }], [])).to.throw(/other/);
      expect(() => refuseUsed([], [{ device: 'other' }], [])).to.not.throw();
    });
  });
});
