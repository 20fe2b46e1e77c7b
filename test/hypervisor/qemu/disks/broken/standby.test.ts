// A standby's disk that is full, broken or read-only: its owner's guest feels nothing, both hosts say what is wrong, and as
// soon as that is mended, the guest is protected: what is taken over then is what was heard.

import { execFileSync } from 'node:child_process';
import { truncateSync } from 'node:fs';
import { Cleanup } from '../../../../support/cleanup.js';
import { immutable } from '../../../../support/immutable.js';
import { LONG, whereTimeIs } from '../../../../support/length.js';
import { loopDevice } from '../../../../support/loop-device.js';
import { Tmpfs } from '../../../../support/tmpfs.js';
import { needQemu } from '../../support.js';
import { DISK_BYTES } from '../kills/sequence.js';
import { MIB, needQemuTools, rawImage } from '../support.js';
import { BrokenHosts } from './broken-hosts.js';

describe('qemu disks: a standby’s is broken', function () {
  this.timeout(120_000);
  const cleanup = new Cleanup();
  before(async function () {
    await needQemu(this);
    await needQemuTools(this);
  });
  afterEach(() => cleanup.run());

  const raw = (file: string) => `file=${file},format=raw`;

  async function smallFileSystem(context: Mocha.Context): Promise<Tmpfs> {
    const small = await Tmpfs.open('8m');
    if (small === null) context.skip();
    cleanup.add(() => small.close());
    return small;
  }

  /** All but so many octets are somebody else's. Returns how to give them back. */
  function filled(small: Tmpfs, freeBytes: number): () => void {
    const free = small.fill();
    truncateSync(`${small.directory}/others`, 8 * MIB - freeBytes);
    return free;
  }

  async function standingBy(standby: string, isPaired = true, preallocate = false): Promise<BrokenHosts> {
    const owner = await rawImage(`${await cleanup.directory()}/image`, DISK_BYTES);
    return BrokenHosts.start(
      cleanup,
      { drives: { alpha: raw(owner), beta: standby }, preallocate },
      isPaired,
    );
  }

  async function mended(hosts: BrokenHosts, mend: () => unknown): Promise<void> {
    await hosts.goesOn();
    mend();
    await hosts.protectedAgain();
    await hosts.takenOver();
  }

  for (const format of LONG ? ['raw', 'qcow2'] : ['raw']) {
    it(`full, as its image grows (${format})`, async function () {
      const small = await smallFileSystem(this);
      const free = filled(small, MIB);
      const hosts = await standingBy(`file=${small.directory}/image,format=${format}`, false);
      await hosts.isTold('beta', /image of the disk disk does not write: ENOSPC/);
      await mended(hosts, free);
    });
  }

  it('full, where all room was given ahead: the record of its image', async function () {
    const small = await smallFileSystem(this);
    const hosts = await standingBy(raw(`${small.directory}/image`), true, true);
    const free = small.fill();
    await hosts.isTold('beta', /record of the image .* cannot be kept: ENOSPC/);
    await mended(hosts, free);
  });

  whereTimeIs(
    'full, where all room was given ahead: what is staged, when the link was cut',
    async function () {
      const small = await smallFileSystem(this);
      const hosts = await standingBy(raw(`${small.directory}/image`), true, true);
      const free = small.fill();
      hosts.cut();
      await hosts.isTold('beta', /ENOSPC/);
      await mended(hosts, free);
    },
  );

  it('broken (EIO); what was not written then is written later', async function () {
    const small = await smallFileSystem(this);
    await rawImage(`${small.directory}/backing`, DISK_BYTES);
    const device = loopDevice(cleanup, `${small.directory}/backing`);
    if (device === null) this.skip();
    const free = filled(small, MIB);
    const hosts = await standingBy(raw(device), false);
    await hosts.isTold('beta', /EIO/);
    await hosts.goesOn();
    free();
    await hosts.protectedAgain();
    // What the kernel keeps of a disk is not what is on it, if it could not be written.
    execFileSync('blockdev', ['--flushbufs', device]);
    await hosts.takenOver();
  });

  whereTimeIs('read-only, all of a sudden', async function () {
    const image = `${await cleanup.directory()}/image`;
    const hosts = await standingBy(raw(image));
    const free = immutable(cleanup, image);
    if (free === null) this.skip();
    await hosts.isTold('beta', /does not write: EPERM|cannot be opened for writing/);
    await mended(hosts, free);
  });
});
