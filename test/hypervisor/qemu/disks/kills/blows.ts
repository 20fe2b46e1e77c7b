// One who kills: what, on which host, and when, is drawn; then the hosts get over it.

import { setTimeout as sleep } from 'node:timers/promises';
import { HOSTS, PATIENCE_MS, type HostName } from '../../../../service/agent-pair.js';
import { pick, type Random } from '../../../../support/random.js';
import { until } from '../../../../support/until.js';
import type { Point, Victim } from './kill-child.js';
import type { KillHosts } from './kill-hosts.js';

export const PHASES = ['first synchronisation', 'steady', 'commit', 'resynchronisation', 'takeover'] as const;
export type Phase = (typeof PHASES)[number];
export type Side = 'owner' | 'standby';

/** The most that a point is passed before the one that counts. */
const SKIPS: Partial<Record<Point, number>> = { copy: 2, seal: 3, 'write first': 4, write: 4, committing: 5 };
const OWNERS: readonly Victim[] = ['agent', 'qemu', 'worker'];
const STANDBYS: readonly Victim[] = ['agent', 'qemu', 'daemon'];
/** Of a synchronisation. */
const SYNCHRONISING: Readonly<Record<Side, readonly Point[]>> = {
  owner: ['keep', 'copy', 'seal'],
  standby: ['begin', 'write first', 'committing first'],
};
/** A busy machine is slow. */
const TRAP_MS = 15_000;
const NEVER = 1e9;

export interface Blow {
  readonly phase: Phase;
  readonly side: Side;
  readonly victim: Victim;
  /** Null: at any moment. */
  readonly point: Point | null;
  readonly how: string;
  /** The point came, and there was something to kill. */
  readonly isHit: boolean;
  /** The guest may have to be started anew: nobody else had it. */
  readonly mayBoot: boolean;
}

export function otherOf(host: HostName): HostName {
  return host === 'alpha' ? 'beta' : 'alpha';
}

/** The pair is paired. When it resolves something has been killed. */
export async function strike(hosts: KillHosts, phase: Phase, random: Random): Promise<Blow> {
  const owner = await hosts.pair.paired();
  const at: Struck = { hosts, random, owner, standby: otherOf(owner), phase };
  switch (phase) {
    case 'first synchronisation':
      return synchronising(at, 'a new standby', 'gone');
    case 'steady':
      await sleep(random() * 200);
      return atOnce(at, drawn(at, random() < 0.5 ? 'owner' : 'standby'));
    case 'commit': {
      const side = random() < 0.5 ? 'owner' : 'standby';
      return trapped(at, drawn(at, side), pick(random, ['write', 'committing', 'committed']));
    }
    case 'resynchronisation':
      return random() < 0.5
        ? synchronising(at, 'the link was cut', null)
        : synchronising(at, 'the standby was restarted', 'kept');
    case 'takeover':
      return takeover(at);
  }
}

interface Struck {
  readonly hosts: KillHosts;
  readonly random: Random;
  readonly owner: HostName;
  readonly standby: HostName;
  readonly phase: Phase;
}

interface Drawn {
  readonly side: Side;
  readonly victim: Victim;
  readonly how: string;
  readonly mayBoot: boolean;
}

function drawn({ random }: Struck, side: Side, how = '', mayBoot = false): Drawn {
  return { side, victim: pick(random, side === 'owner' ? OWNERS : STANDBYS), how, mayBoot };
}

/** `image`: of a standby that dies, and is begun anew; null: nobody does, but the link is cut. */
async function synchronising(at: Struck, how: string, image: 'kept' | 'gone' | null): Promise<Blow> {
  const { hosts, random, standby } = at;
  const side = random() < 0.5 ? 'owner' : 'standby';
  const point = pick(random, SYNCHRONISING[random() < 0.5 ? 'owner' : 'standby']);
  const blow = drawn(at, side, how, side === 'owner');
  const isCopied = blow.victim === 'worker' && point === 'copy' && random() < 0.5;
  const strikes = isCopied ? { ...blow, victim: 'keeper' as const } : blow;
  if (image === null) return trapped(at, strikes, point, () => hosts.cut());
  await hosts.lose(standby, image);
  const begin = () => {
    hosts.pair.begin(standby);
    return Promise.resolve();
  };
  if (sideOf(point) === 'owner') return trapped(at, strikes, point, begin);
  await begin(); // it is told when it is there
  return trapped(at, strikes, point);
}

async function takeover(at: Struck): Promise<Blow> {
  const { hosts, random, owner } = at;
  const first = pick(random, ['agent', 'qemu'] as const);
  const cause = () => {
    hosts.kill(owner, first);
    return Promise.resolve();
  };
  const how = `the owner’s ${first} was killed`;
  const point = pick(random, ['taking', 'taken', 'started'] as const);
  if (first === 'qemu' && random() < 0.3) {
    return trapped(at, { side: 'owner', victim: 'agent', how, mayBoot: false }, point, cause);
  }
  return trapped(at, drawn(at, 'standby', how, true), point, cause);
}

/** What is drawn is killed when somebody comes to the point, which `cause` brings about. */
async function trapped(
  at: Struck,
  { side, victim, how, mayBoot }: Drawn,
  point: Point,
  cause?: () => Promise<void>,
): Promise<Blow> {
  const { hosts, random, phase } = at;
  const there = sideOf(point);
  const host = at[there];
  const skip = Math.floor(random() * (SKIPS[point] ?? 1));
  const isLocal = there === side;
  const { hits } = hosts;
  const isOver = () =>
    hosts.hits > hits || (isLocal && victim === 'agent' && hosts.pair.pidOf(host) === null);
  hosts.trap(host, { point, skip, victim: isLocal ? victim : null });
  await cause?.();
  let isHit = true;
  try {
    await until('the trap', isOver, TRAP_MS);
  } catch {
    isHit = false;
    hosts.trap(host, { point, skip: NEVER, victim: null });
  }
  if (!isLocal || !isHit) hosts.kill(at[side], victim);
  return { phase, side, victim, point, how, isHit, mayBoot };
}

function atOnce(at: Struck, { side, victim, how, mayBoot }: Drawn): Promise<Blow> {
  const isHit = at.hosts.kill(at[side], victim);
  return Promise.resolve({ phase: at.phase, side, victim, point: null, how, isHit, mayBoot });
}

function sideOf(point: Point): Side {
  return point === 'keep' || point === 'copy' || point === 'seal' ? 'owner' : 'standby';
}

/** Somebody runs the guest, both are there again, and it is protected. */
export async function recovered(hosts: KillHosts, blow: Blow, random: Random): Promise<void> {
  const isRunAgain = () => HOSTS.some((host) => hosts.pair.faresOf(host).startsWith('owner'));
  // A host may be back before anybody has noticed that it was gone; or long after.
  if (blow.phase === 'steady' && blow.side === 'owner' && random() < 0.5) {
    await until('somebody runs it', isRunAgain, PATIENCE_MS);
    await hosts.speaks();
  } else {
    await sleep(random() * 300);
  }
  await hosts.revive();
  await hosts.speaks();
  await hosts.pair.paired();
  await hosts.speaks();
  await hosts.matched();
}
