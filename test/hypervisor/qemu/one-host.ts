// The README's "One machine that stands for two hosts", as a lab: a bridge and a tap for each agent, both agents as a
// user starts them, each with the ports of its default configuration; between them a link that can be cut; and a
// client that counts.
//
//   client 10.77.0.1 ─ br0 ─┬─ tap-a ─ QEMU ─ primary ◀── link ◀── secondary ─ QEMU ─ tap-b ─┐
//                           └────────────────────────────────────────────────────────────────┘

import type { GuestFiles } from '../../../src/hypervisor/qemu/guest/build.js';
import { guestMachine } from '../../support/qemu.js';
import { until } from '../../support/until.js';
import { Agent, makeRegisters, REGISTERS } from './lab-agent.js';
import { Counter } from './lab-counter.js';
import { Link, LINK_PORT, PRIMARY_PORT, type Side } from './lab-link.js';
import { LogPipe } from './lab-log-pipe.js';
import { ADDRESSES, Lab, SHARED } from './lab.js';

export const BOOT_TIMEOUT_MS = 60_000;
const SECONDARY_PORT = 7302;
const LOAD = { workingSetPages: 1024, dirtyPages: 100, tickMs: 50 };
/** Where the two keep what is temporary, and shared memory of their own: all that could be left behind is seen. */
export const TEMPORARY = `${SHARED}/tmp`;
const ONE_HOST = `
mkdir ${TEMPORARY}
mount -t tmpfs memory /dev/shm
ip link set lo up
ip link add br0 type bridge
ip address add 10.77.0.1/24 dev br0
ip link set br0 up
for tap in tap-a tap-b; do ip tuntap add $tap mode tap; ip link set $tap master br0 up; done
`;

/** As in a configuration: one card, and what it is plugged into on each side. */
export interface Plug {
  readonly primary: object;
  readonly secondary: object;
  /** Of the guest on that network. */
  readonly address: string;
  /** Where a client reaches its counter; null: nowhere. */
  readonly counter: { readonly address: string; readonly port: number } | null;
}

export const TAPS: Plug = {
  primary: { tap: 'tap-a' },
  secondary: { tap: 'tap-b' },
  address: `${ADDRESSES.guest}/24`,
  counter: { address: ADDRESSES.guest, port: 7 },
};

export interface OneHostOptions {
  readonly plug?: Plug;
  /** Their logs are pipes that can be stalled, at this level. Default: read at once, level info. */
  readonly logPipes?: 'debug';
}

export class OneHost {
  private constructor(
    readonly lab: Lab,
    readonly link: Link,
    readonly primary: Agent,
    readonly secondary: Agent,
    readonly logs: Readonly<Record<Side, LogPipe>> | null,
    readonly plug: Plug,
  ) {}

  /** Resolves when the guest is protected. */
  static async open(files: GuestFiles, options: OneHostOptions = {}): Promise<OneHost> {
    const lab = await Lab.open(ONE_HOST);
    const { plug = TAPS, logPipes } = options;
    const logs = logPipes
      ? { primary: new LogPipe(lab, 'a.log'), secondary: new LogPipe(lab, 'b.log') }
      : null;
    try {
      const link = new Link(lab);
      await until('the link listens', () => link.listening, BOOT_TIMEOUT_MS);
      makeRegisters(lab);
      const agent = (side: Side): Agent =>
        new Agent(lab, side, clusterOf(side, files, plug, logPipes ?? 'info'), {
          host: 'switch',
          temporary: TEMPORARY,
          ...(logs && { log: logs[side] }),
        });
      const primary = agent('primary');
      await until('the primary listens', () => primary.last('listening') !== undefined, BOOT_TIMEOUT_MS);
      const secondary = agent('secondary');
      const pair = new OneHost(lab, link, primary, secondary, logs, plug);
      await until('both are ready', () => pair.isReady(0), BOOT_TIMEOUT_MS);
      return pair;
    } catch (error) {
      logs?.primary.close();
      logs?.secondary.close();
      await lab.close();
      throw error;
    }
  }

  /** A client that counts already; null where there is no way to the guest. */
  async count(): Promise<Counter | null> {
    const { counter } = this.plug;
    if (!counter) return null;
    await until('the guest ticks', () => this.primary.console.includes('tick 2 ok\n'), BOOT_TIMEOUT_MS);
    const client = new Counter(this.lab, 'switch', counter.address, counter.port);
    await client.reach(2, BOOT_TIMEOUT_MS);
    return client;
  }

  /** Both said that they are ready when they were asked at this time (Date.now) or later. */
  isReady(sinceMs: number): boolean {
    return (['primary', 'secondary'] as const).every((side) => {
      const news = this.link.ready.get(side);
      return news?.ready === true && news.atMs >= sinceMs;
    });
  }

  /** The stream that the secondary committed from last. */
  get stream(): string {
    return this.secondary.last('commit')?.report.streamUuid ?? '';
  }

  /**
   * Resolves when the guest is protected by a stream of the `connection`-th connection since the start (from 1 on), or a
   * later one, and both know it; with the time (Date.now). Fails as soon as something is wrong.
   */
  async protectedAgain(connection: number, client: Counter | null): Promise<number> {
    const wrong = (): boolean => this.trouble() !== null || (client !== null && client.wrong !== '');
    const wait = async (what: string, condition: () => boolean): Promise<void> => {
      await until(what, () => wrong() || condition(), BOOT_TIMEOUT_MS);
      const trouble = this.trouble() ?? client?.wrong ?? '';
      if (trouble !== '') throw new Error(trouble);
    };
    const { connections } = this.link;
    await wait('another connection', () => connections.length >= connection);
    const before = this.stream;
    const sinceMs = connections.at(-1) ?? NaN;
    await wait('a checkpoint of a new stream', () => this.stream !== before);
    await wait('both are ready', () => this.isReady(sinceMs));
    return Date.now();
  }

  /** What is wrong by now, whatever was done to the link; null: nothing. */
  trouble(): string | null {
    const { primary, secondary } = this;
    if (primary.end !== null) return primary.end;
    if (secondary.end !== null) return secondary.end;
    const failover = secondary.last('failover')?.event;
    if (failover) return `a failover: ${JSON.stringify(failover)}`;
    for (const { side, log } of [primary, secondary]) {
      const line = log.find(({ level, error }) => level === 'error' || error?.includes('busy') === true);
      if (line) return `the ${side} says: ${line.msg}: ${line.error ?? ''}`;
    }
    return null;
  }

  async close(): Promise<void> {
    await this.lab.close();
    this.logs?.primary.close();
    this.logs?.secondary.close();
  }
}

/** The file of the cluster, as each side has it: the secondary reaches the primary through the link. */
function clusterOf(side: Side, files: GuestFiles, plug: Plug, level: string): object {
  const { primary, secondary, address } = plug;
  const at = (port: number, httpPort: number) => ({ address: '127.0.0.1', port, http: { port: httpPort } });
  return {
    witness: { kind: 'file', directory: REGISTERS },
    hosts: {
      primary: at(side === 'primary' ? PRIMARY_PORT : LINK_PORT, 9300),
      secondary: at(SECONDARY_PORT, 9301),
    },
    control: '{host}.sock',
    log: { level, format: 'json' },
    domains: [
      {
        name: 'web',
        hosts: {
          primary: { hypervisor: { network: [{ id: 'lan', ...primary }] } },
          secondary: { hypervisor: { network: [{ id: 'lan', ...secondary }] } },
        },
        hypervisor: guestMachine(files, { ...LOAD, address }),
        // Silence of a process that a loaded machine lets wait is not death here, and a link that is away for less than a
        // minute may come back. The other times are the defaults.
        heartbeat: { intervalMs: 100, timeoutMs: 5000 },
        failover: { reconnectWindowMs: 60_000 },
      },
    ],
  };
}
