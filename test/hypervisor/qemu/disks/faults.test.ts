// What goes wrong beside a guest that writes: the thread of the exports dies, freezes, answers errors; somebody ends the
// mirror; the disk itself fails. Each is told, the guest goes on, and attached again its disk is made equal again.

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { Cleanup } from '../../../support/cleanup.js';
import { until } from '../../../support/until.js';
import { expectCode } from '../../support.js';
import { needQemu } from '../support.js';
import { DiskLab, endsOfMirrors, type LabOptions } from './lab.js';
import { LONG } from '../../../support/length.js';
import { needQemuTools } from './support.js';

const CYCLES = LONG ? 150 : 12;

describe('qemu disks: what goes wrong', function () {
  this.timeout(LONG ? 300_000 : 60_000);
  const cleanup = new Cleanup();
  before(async function () {
    await needQemu(this);
    await needQemuTools(this);
  });
  after(() => cleanup.run());

  async function protectedLab(options: LabOptions): Promise<DiskLab> {
    const lab = await DiskLab.open(cleanup, options);
    await lab.disks.keep();
    await equalAgain(lab);
    return lab;
  }

  async function equalAgain(lab: DiskLab): Promise<void> {
    expect(await lab.copy()).to.equal(null);
    await lab.run();
    expect(await lab.pause()).to.equal(0);
  }

  /** The disk is lost; it is attached again, and nobody knows what was written meanwhile. */
  async function lostAndAttached(lab: DiskLab, reason: RegExp): Promise<void> {
    const { source, disks } = lab;
    await until('it is told', () => lab.lost.length > 0);
    expect(lab.lost).to.have.length(1);
    expect(lab.lost[0]).to.match(reason);
    const error = await lab.sealFails('FAILED', 'disk');
    expect(error.facts['disk']).to.equal('disk');
    await expectCode(disks.keep(), 'FAILED');
    const { error: why } = await disks.copy({
      ...{ disk: 0, signal: new AbortController().signal },
      take: () => Promise.resolve(),
    });
    expect(why).to.include({ code: 'FAILED' });
    expect(await source.machine.qmp.execute('query-status')).to.include({ running: true });
    await disks.rest();
    await disks.attach();
    expect(await disks.keep(), 'what was written meanwhile is not known').to.deep.equal([null]);
    lab.events.length = 0;
    await equalAgain(lab);
    await disks.rest();
    expect((await disks.keep())[0]).to.not.equal(null);
  }

  let lab: DiskLab;
  it('with nothing wrong, it is equal', async () => {
    lab = await protectedLab({ format: 'raw', iothread: true });
  });

  it('the thread dies, and what it gave comes back later', async () => {
    await lab.hasWritten();
    // When it writes again, what it wrote before has come to the thread, however busy the machine.
    await lab.hasWritten();
    const given = await lab.disks.seal();
    expect(given).to.have.length(1);
    lab.take([]);
    const ends = endsOfMirrors(lab.source.machine.qmp);
    await lab.plant('die');
    await until('it has ended', () => ends.length > 0);
    expect(ends, 'else QEMU may die of it').to.deep.equal([true]);
    await lab.plant('die', false);
    await lostAndAttached(lab, /thread|mirror/);
    for (const { slabs } of given) lab.disks.release(slabs);
    await equalAgain(lab);
  });

  it('the thread freezes, and the guest’s write with it, and a pause; both go on within seconds', async () => {
    await lab.plant('freeze');
    await sleep(100);
    const started = performance.now();
    await lab.source.suspend();
    expect(performance.now() - started).to.be.within(300, 5000);
    await lab.sealFails('FAILED', 'does not answer');
    await lab.plant('freeze', false);
    await lab.source.resume();
    await lostAndAttached(lab, /does not answer/);
  });

  it('the thread freezes while it is asked', async () => {
    await lab.plant('freeze');
    await sleep(100);
    await Promise.all([
      lab.sealFails('HUNG', 'does not answer'),
      lab.copy().then((error) => expect(error).to.be.instanceOf(Error)),
    ]);
    await lab.plant('freeze', false);
    await lostAndAttached(lab, /does not answer/);
  });

  it('the thread answers errors: the mirror ends, and its next ones, until it does not', async () => {
    const ends = endsOfMirrors(lab.source.machine.qmp);
    await lab.plant('refuse');
    await until('it is told', () => lab.lost.length > 0);
    await until('it has ended', () => ends.length > 0);
    await lab.plant('refuse', false);
    await lostAndAttached(lab, /fails to write/);
    expect(ends, 'else QEMU may die of it').to.deep.equal([true]);
  });

  it('somebody ends the mirror', async () => {
    const { qmp } = lab.source.machine;
    await qmp.execute('stop'); // else QEMU may die of it
    await qmp.execute('block-job-cancel', { device: 'romulus-mirror-0', force: true });
    await until('it is told', () => lab.lost.length > 0);
    await qmp.execute('cont');
    await lostAndAttached(lab, /somebody has ended it/);
  });

  it('a write to the disk itself fails', async () => {
    await cleanup.run();
    const rule = 'inject-error.0.event=none,inject-error.0.iotype=write,inject-error.0.once=on';
    lab = await DiskLab.open(cleanup, {
      format: 'raw',
      drive: (image) =>
        `driver=blkdebug,image.driver=file,image.filename=${image},${rule},inject-error.0.sector=4000,werror=report`,
    });
    await lostAndAttached(lab, /a write to it has failed/);
  });

  for (const iothread of [false, true]) {
    it(`attached and detached ${CYCLES} times under load, ${iothread ? 'with' : 'without'} an iothread`, async () => {
      await cleanup.run();
      lab = await DiskLab.open(cleanup, { format: 'raw', iothread });
      const { disks, source } = lab;
      for (let cycle = 0; cycle < CYCLES; cycle++) {
        await lab.hasWritten();
        await disks.detach();
        await lab.sealFails('WRONG_STATE');
        await lab.hasWritten();
        await Promise.all([disks.attach(), disks.attach()]);
      }
      expect(await disks.keep()).to.deep.equal([null]);
      await equalAgain(lab);
      expect(lab.events).to.deep.equal([]);
      expect(await source.machine.qmp.execute('query-block-jobs')).to.have.length(1);
    });
  }
});
