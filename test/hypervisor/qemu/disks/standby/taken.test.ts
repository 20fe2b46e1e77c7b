// What is left to be done with images that a domain runs on: it does not wait for that, it is told what fails, and that is
// tried again. A record that nobody can remove says nothing any more, wherever that is possible.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect } from 'chai';
import { WriteKind } from '../../../../../src/disk/extents.js';
import { readRecord, recordOf } from '../../../../../src/hypervisor/qemu/disks/standby/record.js';
import { StandbyDisks } from '../../../../../src/hypervisor/qemu/disks/standby/standby-disks.js';
import { stagedOf } from '../../../../../src/hypervisor/qemu/disks/standby/images.js';
import { Cleanup } from '../../../../support/cleanup.js';
import { immutable } from '../../../../support/immutable.js';
import { until } from '../../../../support/until.js';
import { MIB, needQemuTools } from '../support.js';
import { STREAM, give, localDisk } from './support.js';

const BYTES = MIB;
const POINT = { streamUuid: STREAM, epoch: 0 };
const some = { kind: WriteKind.DATA, offset: 0, length: 65536, stamp: 2 };

describe('qemu disks: a standby’s, that were taken over', function () {
  this.timeout(30_000);
  const cleanup = new Cleanup();
  before(function () {
    return needQemuTools(this);
  });
  afterEach(() => cleanup.run());

  /** With a record of it. */
  async function committed() {
    const file = `${await cleanup.directory()}/image`;
    const warnings: string[] = [];
    const options = { paceMs: 10, againMs: 50 };
    const disks = await StandbyDisks.prepare([localDisk(file, 'raw', { bytes: BYTES })], options);
    cleanup.add(() => disks.leave());
    await disks.openNow();
    await disks.begin('in-place');
    await give(disks, [some]);
    await disks.committed(POINT);
    const isSaid = async () => (await readRecord(file, { id: 'disk', bytes: BYTES })) !== null;
    await until('its record', () => existsSync(recordOf(file)));
    let isOver = false;
    disks.warnings$.subscribe({ next: (warning) => warnings.push(warning), complete: () => (isOver = true) });
    return { disks, file, warnings, isSaid, isOver: () => isOver };
  }

  it('a record that cannot be touched: the domain runs, it is told, and it goes as soon as it can', async function () {
    const { disks, file, warnings, isSaid, isOver } = await committed();
    const free = immutable(cleanup, recordOf(file));
    if (free === null) this.skip();
    await disks.taken();
    await until('it is told', () => warnings.length > 0);
    expect(warnings.join()).to.include(file).and.include('EPERM');
    expect(await isSaid()).to.equal(true);
    free();
    await until('all is done', isOver);
    expect(warnings).to.have.lengthOf(1);
    expect(existsSync(recordOf(file))).to.equal(false);
  });

  it('a record in a directory that nothing can be removed from says nothing', async function () {
    const { disks, file, warnings, isSaid, isOver } = await committed();
    const free = immutable(cleanup, path.dirname(file));
    if (free === null) this.skip();
    await disks.taken();
    await until('all is done', isOver);
    expect(readFileSync(recordOf(file), 'utf8')).to.equal('');
    expect(await isSaid()).to.equal(false);
    expect(warnings).to.deep.equal([]);
    free();
  });

  it('what was staged, and cannot be removed, is told', async function () {
    const { disks, file, warnings, isOver } = await committed();
    writeFileSync(stagedOf(file), '');
    const free = immutable(cleanup, stagedOf(file));
    if (free === null) this.skip();
    await disks.taken();
    await until('it is told', () => warnings.length > 0);
    expect(warnings.join()).to.include(stagedOf(file));
    free();
    await until('all is done', isOver);
  });
});
