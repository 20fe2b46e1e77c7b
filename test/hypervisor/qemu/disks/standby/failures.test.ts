// Disks of a standby that are full, broken, hung or read-only: an error in time, with the system's code.

import { execFileSync } from 'node:child_process';
import { expect } from 'chai';
import { WriteKind } from '../../../../../src/disk/extents.js';
import { openImages } from '../../../../../src/hypervisor/qemu/disks/standby/images.js';
import { StandbyDisks } from '../../../../../src/hypervisor/qemu/disks/standby/standby-disks.js';
import { Cleanup } from '../../../../support/cleanup.js';
import { stopProcesses } from '../../../../support/processes.js';
import { Tmpfs } from '../../../../support/tmpfs.js';
import { expectCode } from '../../../support.js';
import { MIB, needQemuTools, qemuImg } from '../support.js';
import { STREAM, contentOf, daemonOf, give, localDisk } from './support.js';

const BYTES = 16 * MIB;
const { DATA } = WriteKind;

describe('qemu disks: a standby’s, that fail', function () {
  this.timeout(30_000);
  const cleanup = new Cleanup();
  before(function () {
    return needQemuTools(this);
  });
  afterEach(() => cleanup.run());

  async function opened(file: string, format: string, open = openImages): Promise<StandbyDisks> {
    const disks = await StandbyDisks.prepare([localDisk(file, format, { bytes: BYTES })], { open });
    cleanup.add(() => disks.leave());
    await disks.openNow();
    return disks;
  }

  const all = { kind: DATA, offset: 0, length: BYTES, stamp: 1 };
  const some = { kind: DATA, offset: 0, length: 65536, stamp: 2 };

  for (const format of ['raw', 'qcow2']) {
    it(`a full file system (${format}): what is written, and what is staged, which the images do not feel`, async function () {
      const small = await Tmpfs.open('8m');
      if (small === null) this.skip();
      cleanup.add(() => small.close());
      const file = `${small.directory}/image`;
      const disks = await opened(file, format);
      await disks.begin('in-place');
      await give(disks, [some]);
      await disks.committed({ streamUuid: STREAM, epoch: 0 });
      await disks.begin('staged');
      const error = await expectCode(give(disks, [all]), 'FAILED', 'ENOSPC');
      expect(error.facts).to.include({ code: 'ENOSPC', disk: 'disk', file });
      await expectCode(disks.committed({ streamUuid: STREAM, epoch: 1 }), 'FAILED', 'ENOSPC');

      // They are as of the last checkpoint, and go on to be written to from there; until they do not fit themselves.
      await disks.begin('in-place');
      const fails = give(disks, [{ ...all, offset: MIB, length: BYTES - MIB }]);
      expect((await expectCode(fails, 'FAILED')).facts).to.include({ code: 'ENOSPC' });
      expect((await disks.lost).facts).to.include({ code: 'ENOSPC' });
      await expectCode(disks.taken(), 'FAILED', 'in the middle');
    });
  }

  it('what was staged and failed is no matter to a takeover from the checkpoint before', async function () {
    const small = await Tmpfs.open('8m');
    if (small === null) this.skip();
    cleanup.add(() => small.close());
    const file = `${small.directory}/image`;
    const disks = await opened(file, 'qcow2');
    await disks.begin('in-place');
    await give(disks, [some]);
    await disks.committed({ streamUuid: STREAM, epoch: 0 });
    const before = await contentOfLent(disks, file);
    await disks.begin('staged');
    await expectCode(give(disks, [all]), 'FAILED', 'ENOSPC');
    await disks.taken();
    expect((await contentOf(file, 'qcow2')).compare(before)).to.equal(0);
  });

  async function contentOfLent(disks: StandbyDisks, file: string): Promise<Buffer> {
    return disks.lent(() => contentOf(file, 'qcow2'));
  }

  for (const [event, what] of [
    ['write_aio', 'what is written'],
    ['flush_to_disk', 'a flush'],
  ] as const) {
    it(`a broken disk (EIO): ${what}`, async () => {
      const file = `${await cleanup.directory()}/image`;
      const rule = { event, errno: 5, immediately: true };
      const nodeOf = () =>
        Promise.resolve({
          ...{ driver: 'blkdebug', 'inject-error': [rule] },
          image: { driver: 'file', filename: file },
        });
      const disks = await opened(file, 'raw', (local, isStaged) => openImages(local, isStaged, { nodeOf }));
      await disks.begin('in-place');
      if (event === 'write_aio') {
        const error = await expectCode(give(disks, [some]), 'FAILED', 'EIO');
        expect(error.facts).to.include({ code: 'EIO', disk: 'disk', offset: 0 });
      } else {
        await give(disks, [some]);
      }
      expect((await disks.lost).facts).to.include({ code: 'EIO' });
      await expectCode(disks.committed({ streamUuid: STREAM, epoch: 0 }), 'FAILED', 'EIO');
    });
  }

  it('a disk that hangs: it is said in time, and others are told the same at once', async () => {
    const file = `${await cleanup.directory()}/image`;
    const answerMs = 300;
    const disks = await opened(file, 'raw', (local, isStaged) => openImages(local, isStaged, { answerMs }));
    await disks.begin('in-place');
    await give(disks, [some]);
    const pid = daemonOf(file);
    await stopProcesses([pid]);
    cleanup.add(() => process.kill(pid, 'SIGCONT'));
    const error = await expectCode(give(disks, [some]), 'HUNG', 'hangs');
    expect(error.facts).to.include({ disk: 'disk', file });
    const before = performance.now();
    await expectCode(disks.committed({ streamUuid: STREAM, epoch: 0 }), 'HUNG');
    expect(performance.now() - before).to.be.below(answerMs);
    expect((await disks.lost).code).to.equal('HUNG');
  });

  it('an image that nobody may write to is refused by its name, and the system’s reason', async function () {
    const file = `${await cleanup.directory()}/image`;
    await qemuImg('create', '-f', 'raw', file, String(BYTES));
    try {
      execFileSync('chattr', ['+i', file], { stdio: 'ignore' });
    } catch {
      console.log('\n    SKIPPED: nothing can be made immutable here\n');
      this.skip();
    }
    cleanup.add(() => execFileSync('chattr', ['-i', file]));
    const error = await expectCode(opened(file, 'raw'), 'BAD_CONFIGURATION', file);
    expect(error.facts['code']).to.be.oneOf(['EPERM', 'EACCES', 'EROFS']);
  });
});
