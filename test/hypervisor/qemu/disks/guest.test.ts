// A guest that writes as fast as it can, and is paused again and again: at QEMU's reply to `stop` what was mirrored is
// what is on the disk, not a write more or less. And attached and detached, also again and again.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { firstWhere } from '../../../../src/flow/first-where.js';
import type { NbdExports, NbdExportEvent } from '../../../../src/hypervisor/qemu/disks/nbd/exports.js';
import type { QmpClient } from '../../../../src/hypervisor/qemu/monitor/qmp.js';
import { Cleanup } from '../../../support/cleanup.js';
import { QEMU } from '../../../support/qemu.js';
import { until } from '../../../support/until.js';
import { countingArguments, withScatteringGuest } from '../shared-disk.js';
import { needQemu } from '../support.js';
import { MIB, StandbyDisk, attachMirror, exported, monitorAt, rawImage, sealInto } from './support.js';

const PAUSES = 60;
const CYCLES = 12;
const COPIES = 30;

interface Machine {
  readonly qmp: QmpClient;
  readonly image: string;
  readonly exports: NbdExports;
  readonly events: readonly NbdExportEvent[];
}

/** Its guest has not begun. */
async function machine(cleanup: Cleanup, guest: string): Promise<Machine> {
  const directory = await cleanup.directory();
  const image = await rawImage(`${directory}/image`, MIB);
  const qemu = spawn(
    QEMU,
    [
      ...['-nodefaults', '-display', 'none', '-accel', 'tcg', '-m', '16M', '-machine', 'q35', '-S'],
      ...['-qmp', `unix:${directory}/qmp,server=on,wait=off`],
      ...countingArguments(guest, image),
    ],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  cleanup.add(async () => {
    const closed = once(qemu, 'close');
    qemu.kill('SIGKILL');
    await closed;
  });
  const qmp = await monitorAt(`${directory}/qmp`);
  cleanup.add(() => qmp.close());
  return { qmp, image, ...(await exported(cleanup, { disks: [{ name: 'disk', bytes: MIB }] })) };
}

describe('qemu disks: a guest that writes', function () {
  const cleanup = new Cleanup();
  let guest = '';
  before(function () {
    return needQemu(this);
  });
  beforeEach(async () => {
    await new Promise<void>((ready, failed) => {
      withScatteringGuest((image) => {
        guest = image;
        ready();
        return new Promise((over) => cleanup.add(over));
      }).catch(failed);
    });
  });
  afterEach(() => cleanup.run());

  it(`is mirrored as it is at each of ${PAUSES} pauses`, async () => {
    const { qmp, image, exports } = await machine(cleanup, guest);
    const standby = new StandbyDisk(MIB);
    await attachMirror(qmp, exports, 'disk');
    await qmp.execute('cont');
    let writes = 0;
    for (let pause = 0; pause < PAUSES; pause++) {
      const before = writes;
      // A seal without a pause: what it ends is no matter, nothing is lost by it.
      while (writes < before + 20) {
        for (const { counters } of await sealInto(exports, { disk: standby })) writes += counters.writes;
      }
      exports.letThrough();
      await qmp.execute('stop');
      const sealed = sealInto(exports, { disk: standby });
      const disk = readFileSync(image);
      await qmp.execute('cont');
      for (const { counters, dirty } of await sealed) {
        writes += counters.writes;
        expect([counters.reads, dirty]).to.deep.equal([0, null]);
      }
      expect(disk.compare(standby.octets), `pause ${pause}`).to.equal(0);
    }
  });

  it(`is attached and detached in ${CYCLES} pauses`, async () => {
    const { qmp, image, exports, events } = await machine(cleanup, guest);
    const standby = new StandbyDisk(MIB);
    let writes = 0;
    for (let cycle = 0; cycle < CYCLES; cycle++) {
      standby.octets.set(readFileSync(image));
      await attachMirror(qmp, exports, 'disk');
      await qmp.execute('cont');
      const before = writes;
      while (writes < before + 20) {
        for (const { counters } of await sealInto(exports, { disk: standby })) writes += counters.writes;
      }
      await qmp.execute('stop');
      for (const { counters } of await sealInto(exports, { disk: standby })) writes += counters.writes;
      expect(readFileSync(image).compare(standby.octets), `cycle ${cycle}`).to.equal(0);
      const cancelled = firstWhere(qmp.events$, ({ name }) => name === 'BLOCK_JOB_CANCELLED');
      await qmp.execute('block-job-cancel', { device: 'job-disk', force: true });
      await cancelled;
      await qmp.execute('blockdev-del', { 'node-name': 'mirror-disk' });
      await until('it is told', () => events.length === 2 * (cycle + 1));
    }
    expect(new Set(events.map(({ kind }) => kind))).to.deep.equal(new Set(['connected', 'lost']));
  });

  it(`is copied while it writes, ${COPIES} times, and is equal at the pause after it`, async () => {
    const { qmp, image, exports } = await machine(cleanup, guest);
    const reader = `${await cleanup.directory()}/reader`;
    await qmp.execute('nbd-server-start', { addr: { type: 'unix', data: { path: reader } } });
    const [disk] = (await qmp.execute('query-block')) as [{ inserted: { 'node-name': string } }];
    const node = disk.inserted['node-name'];
    await attachMirror(qmp, exports, 'disk');
    await qmp.execute('block-export-add', { type: 'nbd', id: 'reader', name: 'disk', 'node-name': node });
    await qmp.execute('cont');
    for (let round = 0; round < COPIES; round++) {
      const standby = new StandbyDisk(MIB);
      standby.octets.fill(0xee);
      let writes = 0;
      const wroteSome = async () => {
        for (const before = writes; writes < before + 5;) {
          for (const { counters } of await sealInto(exports, { disk: standby })) writes += counters.writes;
        }
      };
      await wroteSome();
      const { error } = await exports.copy({
        ...{ disk: 'disk', path: reader, exportName: 'disk' },
        // Its one piece is applied before what this epoch writes: nothing is sealed before it is taken.
        take: ({ extents, slab }) => {
          standby.take({ extents, slabs: slab ? [slab] : [] });
          return Promise.resolve();
        },
      });
      expect(error).to.equal(null);
      if (round % 2 === 0) await wroteSome();
      await qmp.execute('stop');
      const sealed = sealInto(exports, { disk: standby });
      const octets = readFileSync(image);
      await qmp.execute('cont');
      await sealed;
      expect(octets.compare(standby.octets), `copy ${round}`).to.equal(0);
    }
  });

  it('goes on when nobody serves it any more, and QEMU says that its disk is not mirrored', async () => {
    const { qmp, exports } = await machine(cleanup, guest);
    await attachMirror(qmp, exports, 'disk');
    await qmp.execute('cont');
    let writes = 0;
    while (writes < 20) for (const { counters } of await exports.seal()) writes += counters.writes;
    const ended = firstWhere(qmp.events$, ({ name }) => name === 'BLOCK_JOB_COMPLETED');
    await exports.close();
    expect((await ended).data['error']).to.be.a('string');
    expect(await qmp.execute('query-status')).to.include({ running: true });
  });
});
