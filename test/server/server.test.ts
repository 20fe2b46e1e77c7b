// A Debian server (systemd, sshd, PostgreSQL, Redis) with its root on a local image of each host, under load: its owner is
// killed a few times, see rounds.ts. ROMULUS_SERVER_KILLS says how often.

import { expect } from 'chai';
import { findNeeded } from '../cluster/cluster.js';
import { needLab } from '../hypervisor/qemu/lab.js';
import { QEMU } from '../support/qemu.js';
import { times } from '../support/length.js';
import { ensureInstalled } from '../support/tools.js';
import { BUILD_TIMEOUT_MS, ensureServer } from './image.js';
import { GUEST_ADDRESS, PATIENCE_MS, serverRounds } from './rounds.js';

const KILLS = Number(process.env['ROMULUS_SERVER_KILLS'] ?? times(2, 20));
const PROGRAMS = [
  [QEMU, 'qemu-system-x86'],
  ['qemu-storage-daemon', 'qemu-system-common'],
  ['e2fsck', 'e2fsprogs'],
  ['ssh', 'openssh-client'],
] as const;

describe('a Debian server', function () {
  it(`loses its owner ${KILLS} times, and no commit, connection or block`, async function () {
    await needLab(this);
    this.timeout(BUILD_TIMEOUT_MS + (KILLS + 3) * PATIENCE_MS);
    for (const [program, debianPackage] of PROGRAMS) {
      if ((await ensureInstalled(program, debianPackage)) === null) this.skip();
    }
    const [needed, files] = [await findNeeded(false), await ensureServer(GUEST_ADDRESS)];
    if (!needed || !files) return this.skip();
    const { fault, rounds } = await serverRounds(needed.etcd, files, {
      kills: KILLS,
      say: (text) => console.log(text.replaceAll(/^/gm, '      ')),
    });
    expect(fault).to.equal(null);
    expect(rounds.length).to.equal(KILLS);
  });
});
