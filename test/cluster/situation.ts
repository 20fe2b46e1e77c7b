// A cluster of two hosts in trouble: ways that are cut in one direction or both, a witness that is late, mute or stopped;
// mended step by step. What has to be so at each step follows from who can talk to whom:
//
//   two of the three (owner, standby, witness) can talk      somebody is heard
//   no two can                                               nobody is heard, and nothing is lost
//   always                                                   never two are heard
//   all is mended                                            protected again, by nobody's hand

import { setTimeout as sleep } from 'node:timers/promises';
import type { Counter } from '../hypervisor/qemu/lab-counter.js';
import { until } from '../support/until.js';
import type { Cluster } from './cluster.js';
import type { Party } from './network.js';

/** As they are when it begins. */
export type Place = 'owner' | 'standby' | 'witness';
/** "owner>standby": what is sent there. "owner-standby": that, and what is sent back. */
export type Way = `${Place}${'>' | '-'}${Place}`;
/** stopped: it answers nobody, and later does what it was asked. mute: it does it, and nobody hears so; late: not in time. */
export type WitnessTrouble = 'stopped' | 'mute' | 'late' | 'slow';
export type Trouble = Way | WitnessTrouble;

export interface Situation {
  readonly troubles: readonly Trouble[];
  /** What is mended, one after another; the rest at last, at once. */
  readonly mended?: readonly Trouble[];
}

/** Replies that come so late are in time; the agents wait for 1000. */
const SLOW_MS = 500;
const LATE_MS = 1500;
/** Death is noticed within so much: heartbeat.timeoutMs, failover.reconnectWindowMs, and a busy machine. */
const NOTICED_MS = 2000;
/** Nobody is heard for so long. */
const SILENT_MS = 1500;
/** Somebody is heard within so much. */
const HEARD_MS = 20_000;

const WITNESS_TROUBLES: ReadonlySet<Trouble> = new Set<Trouble>(['stopped', 'mute', 'late', 'slow']);

function isWay(trouble: Trouble): trouble is Way {
  return !WITNESS_TROUBLES.has(trouble);
}

/** The directions that a way is cut in. */
function directionsOf(way: Way): [Place, Place][] {
  const [one, other] = way.split(/[>-]/) as [Place, Place];
  return way.includes('>')
    ? [[one, other]]
    : [
        [one, other],
        [other, one],
      ];
}

/** Can any two talk? */
export function twoCanTalk(troubles: readonly Trouble[]): boolean {
  const deaf = troubles.some((trouble) => !isWay(trouble) && trouble !== 'slow');
  const cut = troubles.filter(isWay).flatMap(directionsOf);
  const pairs: [Place, Place][] = [
    ['owner', 'standby'],
    ['owner', 'witness'],
    ['standby', 'witness'],
  ];
  return pairs.some(([one, other]) => {
    if (deaf && other === 'witness') return false;
    return !cut.some((way) => way.includes(one) && way.includes(other));
  });
}

/** What came of it: the client's longest silence, milliseconds. */
export interface Outcome {
  readonly silenceMs: number;
  readonly owner: string;
}

/** Begins and ends with a domain that is protected. @throws Error with what is not as it has to be */
export async function undergo(
  cluster: Cluster,
  client: Counter,
  { troubles, mended = [] }: Situation,
): Promise<Outcome> {
  await cluster.untilProtected();
  const scene = new Scene(cluster);
  const from = client.replies.length;
  await Promise.all(troubles.map((trouble) => scene.make(trouble)));
  let left = troubles;
  await check(client, left);
  for (const one of mended) {
    await scene.mend(one);
    left = left.filter((trouble) => trouble !== one);
    await check(client, left);
  }
  await Promise.all(left.map((trouble) => scene.mend(trouble)));
  await cluster.untilProtected();
  await client.reach(client.replies.length + 10, HEARD_MS);
  const two = await cluster.contradiction();
  if (two !== null) throw new Error(two);
  return { silenceMs: silenceSince(client, from), owner: cluster.owner()?.name ?? '' };
}

class Scene {
  readonly #cluster: Cluster;
  readonly #parties: Readonly<Record<Place, Party>>;

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
    const [owner, standby] = [cluster.owner(), cluster.standby()];
    if (!owner || !standby) throw new Error('it is not protected');
    this.#parties = { owner: owner.name, standby: standby.name, witness: 'witness' };
  }

  async make(trouble: Trouble): Promise<void> {
    const { witness } = this.#cluster;
    if (isWay(trouble)) {
      for (const way of this.#directions(trouble)) await this.#cluster.cut(...way);
    } else if (trouble === 'stopped') await witness.stop();
    else witness.answersAfter({ mute: null, late: LATE_MS, slow: SLOW_MS }[trouble]);
  }

  async mend(trouble: Trouble): Promise<void> {
    const { witness } = this.#cluster;
    if (isWay(trouble)) {
      for (const way of this.#directions(trouble)) await this.#cluster.mend(...way);
    } else if (trouble === 'stopped') witness.goOn();
    else witness.answersAfter(0);
  }

  #directions(way: Way): [Party, Party][] {
    return directionsOf(way).map(([from, to]) => [this.#parties[from], this.#parties[to]]);
  }
}

/** Who has to be heard is, from when whatever has happened is noticed; who must not is not. */
async function check(client: Counter, troubles: readonly Trouble[]): Promise<void> {
  const noticedAt = Date.now() + NOTICED_MS;
  const described = troubles.length === 0 ? 'nothing is wrong' : troubles.join(', ');
  if (twoCanTalk(troubles)) {
    const heard = () => (client.replies.at(-1)?.atMs ?? 0) > noticedAt || client.wrong !== '';
    await until(`somebody is heard (${described})`, heard, NOTICED_MS + HEARD_MS);
  } else {
    await sleep(NOTICED_MS);
    const before = client.replies.length;
    await sleep(SILENT_MS);
    const heard = client.replies.length - before;
    if (heard > 0) throw new Error(`${heard} replies though no two can talk (${described})`);
  }
  if (client.wrong !== '') throw new Error(client.wrong);
}

export function silenceSince({ replies }: Counter, from: number): number {
  let longest = 0;
  for (let k = Math.max(1, from); k < replies.length; k++) {
    const [one, other] = [replies[k - 1], replies[k]];
    if (one && other) longest = Math.max(longest, other.atMs - one.atMs);
  }
  return longest;
}
