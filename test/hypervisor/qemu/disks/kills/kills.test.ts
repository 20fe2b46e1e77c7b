// Whatever is killed, on either side and at any moment: a guest that was protected goes on, with all that was heard of it;
// what is taken over, and what a standby commits, is the disk of one moment; and whoever comes back is in step again.

import { expect } from 'chai';
import { PATIENCE_MS } from '../../../../service/agent-pair.js';
import { Cleanup } from '../../../../support/cleanup.js';
import { times } from '../../../../support/length.js';
import { newSeed, seeded, shuffled } from '../../../../support/random.js';
import { needQemu } from '../../support.js';
import { needQemuTools } from '../support.js';
import { PHASES, recovered, strike, type Blow } from './blows.js';
import { KillHosts } from './kill-hosts.js';

const KILLS = times(5, 100);
const KILL_MS = 60_000;

describe('qemu disks: something is killed', function () {
  this.timeout(60_000 + KILLS * KILL_MS);
  const cleanup = new Cleanup();
  before(async function () {
    await needQemu(this);
    await needQemuTools(this);
  });
  afterEach(() => cleanup.run());

  it(`${KILLS} times: the disk is always that of one committed moment`, async () => {
    const seed = Number(process.env['ROMULUS_TEST_SEED'] ?? newSeed());
    const random = seeded(seed);
    const hosts = await KillHosts.start(cleanup, { alpha: 'raw', beta: 'qcow2' });
    const blows: Blow[] = [];
    try {
      while (blows.length < KILLS) {
        for (const phase of shuffled(random, PHASES)) {
          await hosts.speaks();
          const { boots } = hosts;
          const blow = await strike(hosts, phase, random);
          blows.push(blow);
          await recovered(hosts, blow, random);
          if (hosts.boots > boots && !blow.mayBoot) hosts.faults.push('it was started anew');
          expect(hosts.faults).to.deep.equal([]);
        }
      }
      // In step at the end, too: what is handed over is the owner's last pause.
      const { takeovers } = hosts;
      await hosts.pair.switchedOver(PATIENCE_MS);
      await hosts.speaks();
      await hosts.matched();
      expect([hosts.takeovers, hosts.faults]).to.deep.equal([takeovers + 1, []]);
    } catch (error) {
      console.log(`      after ${JSON.stringify(blows.slice(-3))}`);
      throw error;
    } finally {
      console.log(
        `      seed ${seed}: ${told(blows)}; ${hosts.takeovers} takeovers, ${hosts.boots} boots, ${hosts.commits} commits`,
      );
    }
  });
});

function told(blows: readonly Blow[]): string {
  return PHASES.map((phase) => {
    const of = blows.filter((blow) => blow.phase === phase);
    const each = of.map(({ side, victim, isHit }) => `${side} ${victim}${isHit ? '' : ' (missed)'}`);
    const counts = [...new Set(each)].map((what) => `${each.filter((one) => one === what).length} ${what}`);
    return `${phase}: ${counts.join(', ')}`;
  }).join('; ');
}
