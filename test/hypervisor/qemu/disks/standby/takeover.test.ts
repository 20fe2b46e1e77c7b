// A domain that is taken over sees on its disk what was written into its image while its QEMU waited.

import { expect } from 'chai';
import { WriteKind } from '../../../../../src/disk/extents.js';
import { firstWhere } from '../../../../../src/flow/first-where.js';
import type { Domain } from '../../../../../src/hypervisor/port.js';
import {
  openQemuSource,
  openQemuTarget,
  type QemuConfig,
  type QemuTarget,
} from '../../../../../src/hypervisor/qemu/index.js';
import type { StandbyDisks } from '../../../../../src/hypervisor/qemu/disks/standby/standby-disks.js';
import { Cleanup } from '../../../../support/cleanup.js';
import { seeded } from '../../../../support/random.js';
import { expectCode, withImage } from '../../../support.js';
import { qemus } from '../../pair.js';
import { Replicator, TEST_NAME, needQemu } from '../../support.js';
import { MIB, needQemuTools, rawImage } from '../support.js';
import { OTHER_STREAM, STREAM, applyTo, give, killDaemonOf, type Write } from './support.js';

const BYTES = 16 * MIB;
const SECTOR = 512;
/** That the guest can name. */
const SECTORS = 256;
const { DATA, ZERO } = WriteKind;

/** Says for each octet of its serial input what that sector of its ISA-IDE disk holds: as a multiboot image. */
// poll: in al, 0x3fd; test al, 1; jz poll; in al, 0x3f8; bl = al
// 0x1f6: 0xe0; wait until not busy; sector count 1, sector bl; 0x1f7: 0x20 (read); wait for DRQ; rep insw to 0x200000
// 512 times: wait until 0x3fd says that it is free; lodsb; out 0x3f8, al; then jmp poll
const READING = Buffer.from(
  '66bafd03eca80174f766baf803ec88c366baf601b0e0ee6642eca88075fb' +
    '66baf201b001ee664288d8ee664231c0ee6642ee66baf701b020eeeca880' +
    '75fba80874f7fcbf00002000b90001000066baf001f3666dbe00002000b9' +
    '0002000066bafd03eca82074f766baf803aceee2efeb8f',
  'hex',
);

describe('qemu disks: a standby’s, at a takeover', function () {
  this.timeout(60_000);
  const cleanup = new Cleanup();
  let guest = '';
  let directory = '';
  before(async function () {
    await needQemu(this);
    await needQemuTools(this);
  });
  beforeEach(async () => {
    directory = await cleanup.directory();
    await new Promise<void>((ready, failed) => {
      withImage(READING, (image) => {
        guest = image;
        ready();
        return new Promise((over) => cleanup.add(over));
      }).catch(failed);
    });
  });
  afterEach(() => cleanup.run());
  const keep = <T extends Domain>(domain: T): T => {
    cleanup.add(() => domain.destroy());
    return domain;
  };

  const config = (image: string, format: string, more: Partial<QemuConfig> = {}): QemuConfig => ({
    ...{ name: TEST_NAME, memoryBytes: 8 * MIB, accelerator: 'tcg' },
    arguments: [
      ...['-kernel', guest, '-device', 'isa-ide,id=legacy', '-device', 'ide-hd,drive=disk,bus=legacy.0'],
      ...['-drive', `if=none,id=disk,file=${image},format=${format},cache=none`],
    ],
    ...more,
  });

  /** A primary's, of the same machine; what it has on its disk is no matter here. */
  async function primary(): Promise<Awaited<ReturnType<typeof openQemuSource>>> {
    const image = await rawImage(`${directory}/primary`, BYTES);
    const source = keep(await openQemuSource(config(image, 'raw', { sharedDisks: ['disk'] })));
    await source.start();
    return source;
  }

  async function standby(format: string): Promise<QemuTarget & { readonly disks: StandbyDisks }> {
    const disks = { disk: { durability: 'strict' as const, bytes: BYTES, preallocate: false } };
    const target = keep(await openQemuTarget(config(`${directory}/standby`, format, { disks })));
    if (!target.disks) throw new Error('it has disks');
    return target as QemuTarget & { readonly disks: StandbyDisks };
  }

  /** Some of the sectors that the guest can read, ascending. */
  function someWrites(random: () => number, stamp: number): Write[] {
    const writes: Write[] = [];
    for (let sector = 0; sector < SECTORS; sector += 1 + Math.floor(random() * 8)) {
      const kind = random() < 0.8 ? DATA : ZERO;
      writes.push({ kind, offset: sector * SECTOR, length: SECTOR, stamp: stamp + sector });
    }
    return writes;
  }

  async function expectOnDisk(target: QemuTarget, model: Buffer): Promise<void> {
    let heard = Buffer.alloc(0);
    target.output$.subscribe((octets) => (heard = Buffer.concat([heard, octets])));
    for (let sector = 0; sector < SECTORS; sector += 11) {
      const before = heard.length;
      const said = firstWhere(target.output$, () => heard.length === before + SECTOR);
      await target.input(Uint8Array.of(sector));
      await said;
      const expected = model.subarray(sector * SECTOR, (sector + 1) * SECTOR);
      expect(heard.subarray(before).compare(expected), `sector ${sector}`).to.equal(0);
    }
  }

  for (const format of ['raw', 'qcow2']) {
    it(`of a QEMU that was there all the time, as ${format}`, async () => {
      const source = await primary();
      const target = await standby(format);
      const { disks } = target;
      const random = seeded(3);
      const model = Buffer.alloc(BYTES);
      const [waiting] = qemus('standby');
      expect(waiting).to.be.a('number');
      const replicator = new Replicator(source, target);
      await replicator.begin();
      await disks.begin('in-place');
      for (let epoch = 0; epoch < 3; epoch++) {
        const writes = someWrites(random, epoch * 1000);
        applyTo(model, writes);
        await give(disks, writes);
        await disks.committed({ streamUuid: STREAM, epoch });
        await replicator.checkpoint();
      }
      expect(qemus('standby')).to.deep.equal([waiting]);
      await source.destroy();
      await target.start();
      expect(qemus('standby')).to.deep.equal([waiting]);
      await expectOnDisk(target, model);
      await expectCode(disks.begin('in-place'), 'WRONG_STATE');
    });
  }

  it('of a QEMU that had to be started again', async () => {
    const source = await primary();
    const target = await standby('qcow2');
    const { disks } = target;
    const random = seeded(4);
    const model = Buffer.alloc(BYTES);
    const replicator = new Replicator(source, target);
    await replicator.begin();
    await disks.begin('in-place');
    const round = async (epoch: number): Promise<void> => {
      const writes = someWrites(random, epoch * 1000);
      applyTo(model, writes);
      await give(disks, writes);
      await disks.committed({ streamUuid: STREAM, epoch });
      await replicator.checkpoint();
    };
    await round(0);
    const [waiting = 0] = qemus('standby');
    const told = firstWhere(target.warnings$, (warning) => warning.includes('has ended'));
    process.kill(waiting, 'SIGKILL');
    await round(1);
    await told;
    await round(2);
    await source.destroy();
    await target.start();
    await expectOnDisk(target, model);
  });

  it('of another memory, whose first checkpoint was staged; the older one could be had until then', async () => {
    for (const isTakenBefore of [true, false]) {
      const source = await primary();
      const held = await standby('raw');
      const { disks } = held;
      const random = seeded(5);
      const model = Buffer.alloc(BYTES);
      const first = new Replicator(source, held);
      await first.begin();
      await disks.begin('in-place');
      const before = someWrites(random, 1);
      applyTo(model, before);
      await give(disks, before);
      await disks.committed({ streamUuid: STREAM, epoch: 0 });
      await first.checkpoint();

      const filling = keep(await held.another());
      expect(filling.disks).to.equal(disks);
      await source.disableLogDirty();
      const second = new Replicator(source, filling);
      await second.begin();
      await disks.begin('staged');
      const after = someWrites(random, 10_000);
      await give(disks, after);
      if (isTakenBefore) {
        await source.destroy();
        await filling.destroy();
        await held.start();
        await expectOnDisk(held, model);
        await held.destroy();
        continue;
      }
      // The QEMU is that of the other memory from here on.
      await second.checkpoint();
      await disks.committed({ streamUuid: OTHER_STREAM, epoch: 0 });
      applyTo(model, after);
      await held.destroy();
      await source.destroy();
      await filling.start();
      await expectOnDisk(filling, model);
    }
  });

  it('not in the middle of a checkpoint, nor on a trial', async () => {
    const source = await primary();
    const target = await standby('raw');
    const { disks } = target;
    const replicator = new Replicator(source, target);
    await replicator.begin();
    await disks.begin('in-place');
    await replicator.checkpoint();
    await expectCode(target.trial(new AbortController().signal), 'WRONG_STATE');
    await expectCode(target.start(), 'FAILED', 'in the middle of a checkpoint');
    await disks.committed({ streamUuid: STREAM, epoch: 0 });
    await source.destroy();
    await target.start();
    await expectOnDisk(target, Buffer.alloc(BYTES));
  });

  it('not when nobody can write to them any more: the standby is lost', async () => {
    const target = await standby('qcow2');
    const { disks } = target;
    await disks.begin('in-place');
    await give(disks, [{ kind: DATA, offset: 0, length: SECTOR, stamp: 1 }]);
    const crashed = firstWhere(target.events$, ({ kind }) => kind === 'crashed');
    await killDaemonOf(`${directory}/standby`);
    await crashed;
    await expectCode(target.start(), 'DOMAIN_GONE');
  });
});
