// Page path, bulk: 1 GiB of pages in checkpoints of 64 MiB from one process through the link into the memory of
// another, against plain TCP between two processes with messages of the same size, in the same run. Each is run three
// times in turn, and the best of each is taken.

import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { BenchResult } from './bench.js';

const TOTAL = 1024 ** 3;
const MIB = 1024 ** 2;
const CHECKPOINT_MIB = 64;
const MEMORY_MIB = 256;

interface Report {
  readonly port?: number;
  readonly seconds?: number;
  readonly rssMiB: number;
}

class Child {
  readonly #process: ChildProcess;
  readonly #reports: Report[] = [];
  #wake: () => void = () => undefined;
  rssMiB = 0;

  constructor(...args: (string | number)[]) {
    const file = fileURLToPath(new URL('./channel-peer.js', import.meta.url));
    this.#process = fork(file, args.map(String), { stdio: 'inherit' });
    this.#process.on('message', (message) => {
      const report = message as Report;
      this.rssMiB = Math.max(this.rssMiB, report.rssMiB);
      this.#reports.push(report);
      this.#wake();
    });
  }

  async value(name: 'port' | 'seconds'): Promise<number> {
    for (;;) {
      for (const report of this.#reports) {
        const value = report[name];
        if (value !== undefined) return value;
      }
      await new Promise<void>((resolve) => (this.#wake = resolve));
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

async function run(serverRole: string, clientRole: string) {
  const server = new Child(serverRole, TOTAL);
  const client = new Child(clientRole, await server.value('port'), TOTAL);
  const mibPerSecond = TOTAL / MIB / (await server.value('seconds'));
  await Promise.all([server.end(), client.end()]);
  return { mibPerSecond, serverRss: server.rssMiB, clientRss: client.rssMiB };
}

export async function channelBench(): Promise<BenchResult[]> {
  let raw = 0;
  let link = 0;
  let primaryRss = 0;
  let secondaryRss = 0;
  for (let round = 0; round < 3; round++) {
    raw = Math.max(raw, (await run('raw-server', 'raw-client')).mibPerSecond);
    const result = await run('primary', 'secondary');
    link = Math.max(link, result.mibPerSecond);
    primaryRss = Math.max(primaryRss, result.serverRss);
    secondaryRss = Math.max(secondaryRss, result.clientRss);
  }
  const limit = 200 + 2 * CHECKPOINT_MIB;
  return [
    {
      name: 'pages through the link',
      value: link,
      unit: 'MiB/s',
      reference: { name: 'plain TCP between two processes', value: raw },
      ratio: link / raw,
      target: 'ratio at least 0.4',
    },
    { name: 'peak memory of the primary', value: primaryRss, unit: 'MiB', target: `below ${limit}` },
    {
      name: "peak memory of the secondary, without the domain's own",
      value: secondaryRss - MEMORY_MIB,
      unit: 'MiB',
      target: `below ${limit}`,
    },
  ];
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  for (const result of await channelBench()) console.log(JSON.stringify(result));
}
