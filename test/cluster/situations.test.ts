// Cuts, and a witness that is of no help: two hosts with a QEMU guest, a real etcd, and one connection of one client through
// all of it. What has to be so says situation.ts.

import { expect } from 'chai';
import type { GuestFiles } from '../../src/hypervisor/qemu/guest/build.js';
import { Counter } from '../hypervisor/qemu/lab-counter.js';
import { until } from '../support/until.js';
import { Cluster, needCluster, PATIENCE_MS, qemuDomain } from './cluster.js';
import { twoCanTalk, undergo, type Situation, type Trouble } from './situation.js';
import { LONG } from '../support/length.js';

/** Of a situation that went wrong, so much is told. */
const TOLD_MS = 30_000;
const ALL_CUT = ['owner-standby', 'owner-witness', 'standby-witness'] as const;

/** All orders of the things. */
function ordersOf<T>(things: readonly T[]): T[][] {
  if (things.length === 0) return [[]];
  return things.flatMap((first) =>
    ordersOf(things.filter((thing) => thing !== first)).map((rest) => [first, ...rest]),
  );
}

function mendedInEveryOrder(troubles: readonly Trouble[]): Situation[] {
  return ordersOf(troubles).map((mended) => ({ troubles, mended }));
}

/** What is tried each time. */
const FEW: readonly Situation[] = [
  { troubles: ['owner-standby'] },
  { troubles: ['owner-standby', 'owner-witness'] },
  { troubles: ['owner-standby', 'standby-witness'] },
  { troubles: ['owner>standby'] },
  { troubles: ['standby>owner', 'witness>owner'] },
  { troubles: ALL_CUT, mended: ['owner-standby'] },
  { troubles: ['owner-standby', 'stopped'], mended: ['stopped'] },
  { troubles: ['owner-standby', 'mute'], mended: ['mute'] },
];

/** The rest, with ROMULUS_TEST_LONG=1. */
const MANY: readonly Situation[] = [
  { troubles: ['owner-witness'] },
  { troubles: ['standby-witness'] },
  { troubles: ['owner-witness', 'standby-witness'] },
  { troubles: ['stopped'] },
  { troubles: ['mute'] },
  { troubles: ['standby>owner'] },
  { troubles: ['owner>witness'] },
  { troubles: ['witness>owner'] },
  { troubles: ['standby>witness'] },
  { troubles: ['witness>standby'] },
  { troubles: ['owner>standby', 'owner>witness'] },
  { troubles: ['owner>standby', 'witness>owner'] },
  { troubles: ['owner>standby', 'witness>standby'] },
  { troubles: ['standby>owner', 'standby>witness'] },
  { troubles: ['standby>owner', 'witness>standby'] },
  { troubles: ['owner-standby', 'slow'] },
  ...mendedInEveryOrder(ALL_CUT),
  ...mendedInEveryOrder(['owner-standby', 'stopped']),
  ...mendedInEveryOrder(['owner-standby', 'mute']),
  ...mendedInEveryOrder(['owner-standby', 'late']),
  ...mendedInEveryOrder(['owner>standby', 'witness>owner', 'witness>standby']),
];

function nameOf({ troubles, mended = [] }: Situation): string {
  const then = mended.length === 0 ? '' : `, mended: ${mended.join(', then ')}`;
  return `${troubles.join(', ')}${then}: ${twoCanTalk(troubles) ? 'one' : 'nobody'} is heard, never two`;
}

describe('cluster: who is heard, whatever is cut', function () {
  // What is not mended is in the way of the next one.
  let broken = false;
  beforeEach(function () {
    if (broken) this.skip();
  });
  let cluster: Cluster;
  let client: Counter;
  const situations = LONG ? [...FEW, ...MANY] : FEW;

  before(async function () {
    const needed: { etcd: string; files: GuestFiles } = await needCluster(this);
    cluster = await Cluster.open({ etcd: needed.etcd, domains: [qemuDomain(needed.files)] });
    await cluster.start();
    await cluster.untilProtected();
    await until('the guest ticks', () => cluster.ticks.length > 2, PATIENCE_MS);
    client = new Counter(cluster.lab);
    await client.reach(10, PATIENCE_MS);
  });
  after(() => (cluster as Cluster | undefined)?.close());

  for (const situation of situations) {
    it(nameOf(situation), async function () {
      this.timeout(2 * PATIENCE_MS);
      const since = Date.now();
      try {
        const { silenceMs, owner } = await undergo(cluster, client, situation);
        console.log(`      the client heard nothing for at most ${silenceMs} ms; then ${owner} runs it`);
      } catch (thrown) {
        broken = true;
        console.log(cluster.transcript(since, since + TOLD_MS));
        throw thrown;
      }
      expect(client.wrong).to.equal('');
    });
  }
});
