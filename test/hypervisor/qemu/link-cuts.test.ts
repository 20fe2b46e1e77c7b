// A link that drops for an instant costs nothing but the time to synchronise anew: it does so again and again, at random
// moments, where both agents have what only one can have (a tap, a port that is listened on).

import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import type { GuestFiles } from '../../../src/hypervisor/qemu/guest/build.js';
import { LONG } from '../../support/length.js';
import { ensureGuest, GUEST_TIMEOUT_MS } from '../../support/qemu.js';
import { newSeed, quantile, seeded, shuffled, type Random } from '../../support/random.js';
import { until } from '../../support/until.js';
import { successiveTicksOf } from '../support.js';
import type { Counter } from './lab-counter.js';
import { needLab } from './lab.js';
import { BOOT_TIMEOUT_MS, OneHost, TAPS, type Plug } from './one-host.js';

/** From a cut until both sides are ready again. */
const READY_MS = 5000;
const ANY_MOMENT_MS = 400;
/** Replies that the client must have had after a cut. */
const REPLIES = 2;

/**
 * When the link is cut. All but the first cut the new one, too, and so are two cuts: while it synchronises, when its
 * first checkpoint is committed, as it comes.
 */
type Moment = 'any' | 'synchronising' | 'adopted' | 'dialled';

/** Fifty cuts. */
const MANY = moments({ any: 20, synchronising: 6, adopted: 5, dialled: 4 });
/** Ten. */
const FEW = moments({ any: 4, synchronising: 1, adopted: 1, dialled: 1 });

const PLUGS: Record<string, Plug> = {
  // What is listened on is nobody's; the guest has no way out.
  'sockets that listen': {
    primary: { socket: 'listen=127.0.0.1:7400' },
    secondary: { socket: 'listen=127.0.0.1:7401' },
    address: '10.0.2.15/24',
    counter: null,
  },
  'user networks that forward a port': {
    primary: { user: 'hostfwd=tcp:127.0.0.1:7400-:7' },
    secondary: { user: 'hostfwd=tcp:127.0.0.1:7401-:7' },
    address: '10.0.2.15/24',
    counter: { address: '127.0.0.1', port: 7400 },
  },
};

function moments(counts: Record<Moment, number>): Moment[] {
  return (Object.keys(counts) as Moment[]).flatMap((moment) => Array<Moment>(counts[moment]).fill(moment));
}

/** Cuts once, or twice; resolves, with the milliseconds that it took, when all is well again. */
async function cut(pair: OneHost, moment: Moment, client: Counter | null, random: Random): Promise<number> {
  const { link, secondary } = pair;
  await sleep(random() * ANY_MOMENT_MS);
  const connections = link.connections.length;
  const before = pair.stream;
  // About as much as a synchronisation sends.
  const whole = secondary.messages.reduce(
    (most, message) => (message.kind === 'commit' ? Math.max(most, message.report.bytes) : most),
    0,
  );
  let cutAt = Date.now();
  switch (moment) {
    case 'any':
      link.order({ cut: true });
      break;
    case 'synchronising':
      link.order({ cutNextAfterBytes: Math.ceil(random() * whole) + 1, cut: true });
      break;
    case 'dialled':
      link.order({ cutNextAfterBytes: 0, cut: true });
      break;
    case 'adopted':
      link.order({ cut: true });
      await until(
        'the first checkpoint of the new stream',
        () => pair.stream !== before || pair.trouble() !== null,
        BOOT_TIMEOUT_MS,
      );
      cutAt = Date.now();
      link.order({ cut: true });
      break;
  }
  const again = await pair.protectedAgain(connections + (moment === 'any' ? 1 : 2), client);
  await client?.reach(client.replies.length + REPLIES, BOOT_TIMEOUT_MS);
  return again - (moment === 'any' || moment === 'adopted' ? cutAt : (link.connections.at(-1) ?? cutAt));
}

async function survives(files: GuestFiles, plug: Plug, cuts: readonly Moment[]): Promise<void> {
  const seed = newSeed();
  const random = seeded(seed);
  const pair = await OneHost.open(files, { plug });
  const times: number[] = [];
  try {
    const client = await pair.count();
    for (const moment of shuffled(random, cuts)) times.push(await cut(pair, moment, client, random));
    successiveTicksOf(pair.primary.console);
  } catch (error) {
    console.log(`      seed ${seed}, ${times.length} of ${cuts.length} went well`);
    throw error;
  } finally {
    await pair.close();
  }
  const [middle, most] = [quantile(times, 0.5), Math.max(...times)];
  console.log(`      ready again after ${middle} ms (median), at most ${most} ms`);
  expect(most).to.be.below(READY_MS);
}

describe('qemu: a link that drops for an instant', function () {
  let files: GuestFiles;
  before(async function () {
    await needLab(this);
    this.timeout(GUEST_TIMEOUT_MS);
    const made = await ensureGuest();
    if (!made) return this.skip();
    files = made;
  });

  it('on taps: no failover, and the client’s one connection goes on', async function () {
    this.timeout(300_000);
    await survives(files, TAPS, LONG ? MANY : FEW);
  });

  for (const [what, plug] of Object.entries(PLUGS)) {
    it(`on ${what}`, async function () {
      this.timeout(180_000);
      await survives(files, plug, FEW);
    });
  }
});
