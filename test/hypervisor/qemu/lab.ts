// Three hosts on one switch, each a network namespace, made so that nothing of them can stay:
//
//   primary             secondary           client
//   tap0 ─ br0 ─ uplink ─┐   │   ┌─ uplink ─ br0 ─ tap0
//   10.77.0.11           port-…, switch          10.77.0.12        client: uplink, 10.77.0.13
//
// One shell holds it all. It is the first process of a process namespace of its own (its end is the end of all in it,
// by the kernel's hand), it alone holds the network namespaces (named in a file system that only its mount namespace
// has), and it ends with its standard input, a pipe of ours that nobody else has. So they all end with us, however we end.

import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { childrenOf } from '../../support/processes.js';
import { ensureInstalled } from '../../support/tools.js';

export type Host = 'primary' | 'secondary' | 'client';

export const ADDRESSES: Readonly<Record<Host | 'guest', string>> = {
  guest: '10.77.0.2',
  primary: '10.77.0.11',
  secondary: '10.77.0.12',
  client: '10.77.0.13',
};
export const TAP = 'tap0';
/** A file system of the lab's own, seen by all its hosts and nobody else. */
export const SHARED = '/run';

/** Shell: the three hosts. */
const THREE_HOSTS = `
ip link add switch type bridge
ip link set switch up
for host in primary secondary client; do
  ip netns add $host
  ip link add port-$host type veth peer name uplink netns $host
  ip link set port-$host master switch up
  ip -n $host link set lo up
  ip -n $host link set uplink up
done
for host in primary secondary; do
  ip -n $host link add br0 type bridge
  ip -n $host tuntap add ${TAP} mode tap
  ip -n $host link set uplink master br0
  ip -n $host link set ${TAP} master br0 up
  ip -n $host link set br0 up
done
ip -n primary address add ${ADDRESSES.primary}/24 dev br0
ip -n secondary address add ${ADDRESSES.secondary}/24 dev br0
ip -n client address add ${ADDRESSES.client}/24 dev uplink
`;

/** `sh -c`; says "ready", and stays until its input ends. */
function holding(network: string): string {
  return `set -e\nmount -t tmpfs lab ${SHARED}\n${network}\necho ready\nread -r _ || true\n`;
}
const PROGRAMS = [
  ['ip', 'iproute2'],
  ['mount', 'mount'],
  ['nsenter', 'util-linux'],
  ['unshare', 'util-linux'],
] as const;
const NAMESPACES = ['--net', '--pid', '--fork', '--kill-child=KILL', '--mount', '--mount-proc'];

export class Lab {
  readonly #holder: ChildProcess;
  readonly #closed: Promise<unknown>;
  /** The shell, as seen from outside. */
  readonly pid: number;

  /** Fails if the kernel or our rights do not do. `network` is a shell script that makes what the lab has. */
  static async open(network = THREE_HOSTS): Promise<Lab> {
    const holder = spawn('unshare', [...NAMESPACES, 'sh', '-c', holding(network)], {
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const closed = once(holder, 'close');
    let said = '';
    holder.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
    await Promise.race([
      once(holder.stdout, 'data'),
      closed.then(() => Promise.reject(new Error(`no namespaces: ${said.trim()}`))),
    ]);
    return new Lab(holder, closed);
  }

  private constructor(holder: ChildProcess, closed: Promise<unknown>) {
    this.#holder = holder;
    this.#closed = closed;
    this.pid = childOf(holder);
  }

  /** A program on one of the hosts, or 'switch'. What is spawned is nsenter; the program is its child (see childOf). */
  spawn(host: string, command: string, args: readonly string[], stdio: StdioOptions): ChildProcess {
    const where = host === 'switch' ? [] : ['ip', 'netns', 'exec', host];
    return spawn(
      'nsenter',
      ['--target', String(this.pid), '--net', '--pid', '--mount', '--', ...where, command, ...args],
      { stdio },
    );
  }

  /** One that a test may stop (see stoppableOf): nsenter stops with its child, and what it is would outlive us. */
  spawnStoppable(host: string, command: string, args: readonly string[], stdio: StdioOptions): ChildProcess {
    return this.spawn(host, 'sh', ['-c', '"$@" & wait $!', 'sh', command, ...args], stdio);
  }

  /** What a program says. Fails if it fails. */
  async run(host: string, command: string, ...args: string[]): Promise<string> {
    const child = this.spawn(host, command, args, ['ignore', 'pipe', 'inherit']);
    let said = '';
    child.stdout?.on('data', (chunk: Buffer) => (said += chunk.toString()));
    const [code] = (await once(child, 'close')) as [number | null];
    if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with code ${String(code)}`);
    return said;
  }

  /** Makes a file that all hosts see; returns its name for them. */
  write(name: string, text: string): string {
    writeFileSync(this.outside(name), text);
    return `${SHARED}/${name}`;
  }

  read(name: string): Buffer {
    return readFileSync(this.outside(name));
  }

  /** Ends all that runs in the lab. */
  async close(): Promise<void> {
    this.#holder.stdin?.end();
    await this.#closed;
  }

  /** The name that a file of the lab has for us. */
  outside(name: string): string {
    return `/proc/${this.pid}/root${SHARED}/${name}`;
  }
}

/** The one child of a process that runs a program for us, by its number as we see it. */
export function childOf({ pid = 0 }: ChildProcess): number {
  const [child] = childrenOf(pid);
  if (child === undefined) throw new Error(`process ${pid} has no child`);
  return child;
}

/** The program that spawnStoppable() started, by its number as we see it. */
export function stoppableOf(child: ChildProcess): number {
  const [program] = childrenOf(childOf(child));
  if (program === undefined) throw new Error(`process ${child.pid ?? 0} has no program`);
  return program;
}

/** For `before`: skips the suite, loudly, where there can be no such lab. */
export async function needLab(context: Mocha.Context): Promise<void> {
  context.timeout(300_000);
  try {
    for (const [command, debianPackage] of PROGRAMS) {
      if ((await ensureInstalled(command, debianPackage)) === null) return context.skip();
    }
    await (await Lab.open()).close();
  } catch (thrown) {
    if (!(thrown instanceof Error) || !thrown.message.startsWith('no namespaces')) throw thrown;
    console.log(`\n    SKIPPED: no network laboratory here (it needs root): ${thrown.message}\n`);
    context.skip();
  }
}
