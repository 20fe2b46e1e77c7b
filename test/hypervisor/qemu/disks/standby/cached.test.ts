// A disk that could not be written what the kernel had taken: the kernel shows it still, and as if it were there. A standby
// must not: what it has is what is on its disk.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { expect } from 'chai';
import { CHUNK_BYTES } from '../../../../../src/disk/dirty-map.js';
import { WriteKind } from '../../../../../src/disk/extents.js';
import { SUM_BYTES, putSum } from '../../../../../src/disk/sums.js';
import { recordOf } from '../../../../../src/hypervisor/qemu/disks/standby/record.js';
import { StandbyDisks } from '../../../../../src/hypervisor/qemu/disks/standby/standby-disks.js';
import { Cleanup } from '../../../../support/cleanup.js';
import { Tmpfs } from '../../../../support/tmpfs.js';
import { until } from '../../../../support/until.js';
import { expectCode } from '../../../support.js';
import { MIB, needQemuTools } from '../support.js';
import { STREAM, give, localDisk } from './support.js';

const BYTES = 4 * MIB;
const CHUNKS = BYTES / CHUNK_BYTES;
const { DATA } = WriteKind;

function sumsOf(content: Uint8Array): Uint8Array {
  const sums = new Uint8Array(CHUNKS * SUM_BYTES);
  for (let chunk = 0; chunk < CHUNKS; chunk++) {
    const octets = content.subarray(chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES);
    putSum(octets, new DataView(sums.buffer), chunk * SUM_BYTES);
  }
  return sums;
}

describe('qemu disks: a standby’s, on a disk that lost what it was given', function () {
  this.timeout(60_000);
  const cleanup = new Cleanup();
  before(function () {
    return needQemuTools(this);
  });
  afterEach(() => cleanup.run());

  for (const how of ['made anew', 'begun again'] as const) {
    it(`has the sums of what is on it, when it is ${how}`, async function () {
      const small = await Tmpfs.openThin('8m');
      if (small === null) this.skip();
      cleanup.add(() => small.close());
      const file = `${small.directory}/disk/image`;
      const local = [localDisk(file, 'raw', { bytes: BYTES, preallocate: true })];
      let disks = await StandbyDisks.prepare(local, { paceMs: 50 });
      cleanup.add(() => disks.leave());
      await disks.openNow();
      await disks.begin('in-place');
      await give(disks, [{ kind: DATA, offset: 0, length: MIB, stamp: 1 }]);
      await disks.committed({ streamUuid: STREAM, epoch: 0 });
      await until('its record', () => existsSync(recordOf(file)));
      const free = small.fill();
      // It may be noticed at once, or later.
      await give(disks, [{ kind: DATA, offset: 2 * MIB, length: MIB, stamp: 2 }]).catch(() => undefined);
      await disks.committed({ streamUuid: STREAM, epoch: 1 }).catch(() => undefined);
      // Nobody knows which of what was committed is there.
      expect((await disks.lost).facts['code']).to.be.oneOf(['ENOSPC', 'EIO']);
      await expectCode(disks.taken(), 'FAILED');
      free();

      if (how === 'made anew') {
        await disks.leave();
        disks = await StandbyDisks.prepare(local);
        await disks.openNow();
      } else {
        await disks.begin('in-place');
      }
      const sums = await disks.sums(0, 0, CHUNKS);
      execFileSync('dd', [`if=${file}`, 'iflag=nocache', 'count=0', 'status=none']);
      expect(Buffer.compare(sums, sumsOf(readFileSync(file)))).to.equal(0);

      let durable = -1;
      const heard = disks.durable$.subscribe((point) => (durable = point?.epoch ?? -1));
      cleanup.add(() => heard.unsubscribe());
      await disks.begin('in-place');
      await give(disks, [{ kind: DATA, offset: 2 * MIB, length: MIB, stamp: 3 }]);
      await disks.committed({ streamUuid: STREAM, epoch: 2 });
      await until('it is durable again', () => durable === 2);
    });
  }
});
