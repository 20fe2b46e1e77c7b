// What the world hears of a guest: its frames, by the host from whose cable they come, and whether that was one at a time.
//
//   host ─ uplink ─ port-host, on the switch ─▶ captured: from this host, at this time

import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { Register } from '../../src/failover/register.js';
import { SHARED, childOf, type Lab } from '../hypervisor/qemu/lab.js';
import { framesOf } from '../hypervisor/qemu/lab-pcap.js';
import { until } from '../support/until.js';
import type { HostName } from './network.js';

/** Somebody speaks as the guest, from one time to another, and nobody else in between. */
export interface Speech {
  readonly host: string;
  readonly fromMs: number;
  readonly untilMs: number;
  readonly count: number;
}

/** Enough to tell what a frame is. */
const SNAP_BYTES = 128;

export class Outside {
  readonly #lab: Lab;
  readonly #mac: string;
  readonly #hosts: readonly HostName[];
  readonly #captures: ChildProcess[] = [];

  private constructor(lab: Lab, mac: string, hosts: readonly HostName[]) {
    this.#lab = lab;
    this.#mac = mac;
    this.#hosts = hosts;
  }

  /** Listens from now on, until the lab ends. */
  static async open(lab: Lab, mac: string, hosts: readonly HostName[]): Promise<Outside> {
    const outside = new Outside(lab, mac, hosts);
    for (const host of hosts) await outside.#capture(host);
    return outside;
  }

  /** Who has spoken as the guest, one after another. */
  async speeches(): Promise<Speech[]> {
    // What they have captured is written by now.
    for (const capture of this.#captures) process.kill(childOf(capture), 'SIGUSR2');
    const heard = this.#hosts.flatMap((host) =>
      framesOf(this.#lab.read(fileOf(host))).map(({ atMs }) => ({ host, atMs })),
    );
    await Promise.resolve();
    return speechesOf(heard);
  }

  async #capture(host: HostName): Promise<void> {
    const file = fileOf(host);
    const where = ['-i', `port-${host}`, '-Q', 'in', '-s', String(SNAP_BYTES)];
    const how = ['--immediate-mode', '-U', '-n', '-Z', 'root', '-w', `${SHARED}/${file}`];
    const capture = this.#lab.spawn(
      'switch',
      'tcpdump',
      [...where, ...how, `ether src ${this.#mac}`],
      ['ignore', 'ignore', 'pipe'],
    );
    let said = '';
    capture.stderr?.on('data', (text: Buffer) => (said += text.toString()));
    const listens = () => said.includes('listening on') && existsSync(this.#lab.outside(file));
    await until(`tcpdump listens: ${said}`, listens);
    this.#captures.push(capture);
  }
}

function fileOf(host: HostName): string {
  return `${host}.pcap`;
}

/** Those that follow each other from one host are one speech. */
export function speechesOf(heard: readonly { readonly host: string; readonly atMs: number }[]): Speech[] {
  const speeches: Speech[] = [];
  for (const { host, atMs } of [...heard].sort((one, other) => one.atMs - other.atMs)) {
    const last = speeches.at(-1);
    if (last?.host === host)
      speeches[speeches.length - 1] = { ...last, untilMs: atMs, count: last.count + 1 };
    else speeches.push({ host, fromMs: atMs, untilMs: atMs, count: 1 });
  }
  return speeches;
}

/** The owners of a domain, one after another. */
export function ownersOf(history: readonly Register[]): string[] {
  return history.map(({ owner }) => owner).filter((owner, k, owners) => owner !== owners[k - 1]);
}

/**
 * Null: those who spoke did so while they were owners, one after another, and nobody after another had begun. Else what
 * is wrong. An owner need not have spoken.
 */
export function contradiction(speeches: readonly Speech[], owners: readonly string[]): string | null {
  let turn = 0;
  for (const [k, { host }] of speeches.entries()) {
    while (turn < owners.length && owners[turn] !== host) turn++;
    if (turn === owners.length) {
      const told = speeches
        .slice(Math.max(0, k - 3), k + 2)
        .map((speech) => `${speech.host} ${speech.fromMs.toFixed(1)}…${speech.untilMs.toFixed(1)}`);
      return `${host} speaks out of turn: ${told.join(', ')}; owners ${owners.join(', ')}`;
    }
  }
  return null;
}
