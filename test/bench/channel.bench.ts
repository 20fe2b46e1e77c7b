// Page path, bulk: 1 GiB of pages in checkpoints of 64 MiB, from the saver in one process through the link into the
// restorer and a domain's memory in another, against plain TCP between two processes with messages of the same size.
// Some checkpoints go first, uncounted, on either.
// The two are run in turn, five times; the best of each counts, because what else the machine does only ever costs.

import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { BenchResult } from './bench.js';

const TOTAL = 1024 ** 3;
const MIB = 1024 ** 2;
const ROUNDS = 5;
/** 200 MiB and twice the largest checkpoint. */
const RSS_LIMIT_MIB = 200 + 2 * 64;

interface Report {
  readonly port?: number;
  readonly seconds?: number;
  readonly digest?: string;
  readonly rssMiB: number;
}

class Child {
  readonly #process: ChildProcess;
  readonly #reports: Report[] = [];
  #changed: () => void = () => undefined;
  rssMiB = 0;

  constructor(...args: (string | number)[]) {
    const file = fileURLToPath(new URL('./channel-peer.js', import.meta.url));
    this.#process = fork(file, args.map(String), { stdio: 'inherit' });
    this.#process.on('message', (message) => {
      const report = message as Report;
      this.rssMiB = Math.max(this.rssMiB, report.rssMiB);
      this.#reports.push(report);
      this.#changed();
    });
    this.#process.once('exit', () => {
      this.#changed();
    });
  }

  async value<Name extends 'port' | 'seconds' | 'digest'>(name: Name): Promise<NonNullable<Report[Name]>> {
    for (;;) {
      for (const { [name]: value } of this.#reports) {
        if (value !== undefined) return value;
      }
      if (this.#process.exitCode !== null) throw new Error(`a process ended without saying its ${name}`);
      await new Promise<void>((resolve) => (this.#changed = resolve));
    }
  }

  end(): Promise<void> {
    return new Promise((resolve) => {
      this.#process.once('exit', () => {
        resolve();
      });
      this.#process.kill('SIGKILL');
    });
  }
}

async function run(server: Child, clientRole: string, check: boolean) {
  const client = new Child(clientRole, await server.value('port'), TOTAL);
  try {
    const mibPerSecond = TOTAL / MIB / (await server.value('seconds'));
    if (check && (await server.value('digest')) !== (await client.value('digest'))) {
      throw new Error('the two memories differ');
    }
    return { mibPerSecond, serverRss: server.rssMiB, clientRss: client.rssMiB };
  } finally {
    await Promise.all([server.end(), client.end()]);
  }
}

export async function bench(): Promise<BenchResult[]> {
  let raw = 0;
  let link = 0;
  let primaryRss = 0;
  let secondaryRss = 0;
  for (let round = 0; round < ROUNDS; round++) {
    raw = Math.max(raw, (await run(new Child('raw-server', TOTAL), 'raw-client', false)).mibPerSecond);
    const result = await run(new Child('primary', TOTAL), 'secondary', true);
    link = Math.max(link, result.mibPerSecond);
    primaryRss = Math.max(primaryRss, result.serverRss);
    secondaryRss = Math.max(secondaryRss, result.clientRss);
  }
  return [
    {
      name: 'pages from saver to restorer, two processes',
      value: link,
      unit: 'MiB/s',
      reference: { name: 'plain TCP', value: raw },
      ratio: link / raw,
      target: '>= 0.4',
    },
    { name: 'peak memory of the primary', value: primaryRss, unit: 'MiB', target: `<= ${RSS_LIMIT_MIB}` },
    { name: 'peak memory of the secondary', value: secondaryRss, unit: 'MiB', target: `<= ${RSS_LIMIT_MIB}` },
  ];
}
