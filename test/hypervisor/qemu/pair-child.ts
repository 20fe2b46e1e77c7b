// One host of a pair as a process of its own, to be killed.
//
//   pair-child.js primary CONFIG CHANGES | secondary REACH CONFIG
//
// The primary makes its guest's card say something all the time, and tells, before each epoch is sealed, how often it
// has: synchronously, so that it is known whatever happens next.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { writeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { QemuConfig } from '../../../src/hypervisor/qemu/index.js';
import type { Reach } from '../../service/hosts.js';
import { announce } from './outside.js';
import { PrimaryOf, SecondaryOf, type PairChanges } from './pair.js';

const FILE = fileURLToPath(import.meta.url);
const SPEAK_MS = 3;

export class PairChild {
  readonly process: ChildProcess;
  port = 0;
  /** By epoch: frames that were made before it was sealed, at most. */
  readonly spoken = new Map<number, number>();
  #rest = '';

  /** `registers`: a directory. */
  static primary(config: QemuConfig, changes: PairChanges & { readonly registers: string }): PairChild {
    return new PairChild(['primary', JSON.stringify(config), JSON.stringify(changes)]);
  }

  static secondary(port: number, registers: string, config: QemuConfig): PairChild {
    return new PairChild(['secondary', JSON.stringify({ port, registers }), JSON.stringify(config)]);
  }

  private constructor(args: readonly string[]) {
    this.process = spawn(process.execPath, [FILE, ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.process.stdin?.on('error', () => undefined); // it is killed
    this.process.stdout?.on('data', (chunk: Buffer) => {
      const lines = (this.#rest + chunk.toString()).split('\n');
      this.#rest = lines.pop() ?? '';
      for (const line of lines) this.#take(line.split(' '));
    });
  }

  get pid(): number {
    return this.process.pid ?? 0;
  }

  /** Kills this process and nothing else. Resolves when it is gone, and all that it told is here. */
  async kill(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const closed = once(this.process, 'close');
    this.process.kill('SIGKILL');
    await closed;
  }

  #take([kind, first, second]: string[]): void {
    if (kind === 'port') this.port = Number(first);
    else if (kind === 'seal') this.spoken.set(Number(first), Number(second));
  }
}

function tell(...words: (string | number)[]): void {
  writeSync(1, `${words.join(' ')}\n`);
}

async function primary(config: QemuConfig, changes: PairChanges): Promise<void> {
  const side = new PrimaryOf(config, changes);
  await side.start();
  tell('port', side.port);
  const { domain } = side;
  let spoken = 0;
  const [gate] = domain.gates;
  if (gate) {
    const seal = gate.seal.bind(gate);
    gate.seal = (epoch) => {
      tell('seal', epoch, spoken);
      return seal(epoch);
    };
    // Not before the gate was tested: that needs silence.
    const started = domain.start.bind(domain);
    domain.start = async () => {
      await started();
      setInterval(() => {
        spoken++;
        announce(domain.machine.qmp).catch(() => undefined);
      }, SPEAK_MS);
    };
  }
}

async function secondary(reach: Reach, config: QemuConfig): Promise<void> {
  const side = new SecondaryOf(reach, config);
  await side.start();
  tell('port', 0);
}

const [, script, kind, ...args] = process.argv;
if (script === FILE) {
  // Whoever started us is gone: so are we.
  process.stdin.on('end', () => process.exit(1)).resume();
  if (kind === 'primary') {
    await primary(JSON.parse(args[0] ?? '') as QemuConfig, JSON.parse(args[1] ?? '') as PairChanges);
  } else {
    await secondary(JSON.parse(args[0] ?? '') as Reach, JSON.parse(args[1] ?? '') as QemuConfig);
  }
}
