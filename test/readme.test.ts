// The program of docs/LIBRARY.md, and the commands of the README and of docs/PROTECTING.md that write configurations, are
// run as they stand there.

import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { parse, stringify } from 'yaml';
import { freePort } from '../src/cli/demo/cluster.js';
import { parseCluster } from '../src/config/cluster.js';
import { until } from './support/until.js';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../../', import.meta.url));
const romulus = join(root, 'dist', 'src', 'cli', 'main.js');
// Inside the package, so that its own name can be imported.
const programFile = join(root, 'dist', 'test', 'readme-program.mjs');

const hypervisor = { kind: 'embedded', memory: '8MiB', guest: { workingSetPages: 256, dirtyPages: 50 } };

interface Written {
  readonly domains: readonly { readonly hypervisor: object }[];
}

/** What the README's commands write, run as they stand there. */
async function written(readme: string): Promise<Written> {
  const commands = [...readme.matchAll(/^```sh\n(.*?)^```$/gms)]
    .map(([, text = '']) => text)
    .find((text) => text.includes('> cluster.yaml'));
  const home = await mkdtemp(join(tmpdir(), 'romulus-readme-'));
  try {
    await mkdir(join(home, '.cache', 'romulus', 'qemu-guest-0'), { recursive: true });
    await run('sh', ['-euc', commands ?? ''], { cwd: home, env: { ...process.env, HOME: home } });
    return parse(await readFile(join(home, 'cluster.yaml'), 'utf8')) as Written;
  } finally {
    await rm(home, { recursive: true });
  }
}

class Agent {
  printed = '';
  readonly process: ChildProcess;
  readonly #closed: Promise<unknown>;

  constructor(args: readonly string[], cwd: string) {
    this.process = spawn(process.execPath, args, { cwd, stdio: ['ignore', 'pipe', 'inherit'] });
    this.#closed = once(this.process, 'close');
    this.process.stdout?.on('data', (bytes: Buffer) => (this.printed += bytes.toString()));
  }

  async says(what: RegExp): Promise<void> {
    await until(`the agent says ${String(what)}`, () => what.test(this.printed), 30_000);
  }

  async kill(): Promise<void> {
    this.process.kill('SIGKILL');
    await this.#closed;
  }
}

describe('README', () => {
  it('what it writes for a QEMU guest is a cluster, on one machine and on two hosts', async () => {
    const readme = await readFile(join(root, 'README.md'), 'utf8');
    const cluster = await written(readme);
    const taps = ['alpha', 'beta'].map((host) => {
      const { witness, domains } = parseCluster(cluster, host);
      expect(witness.kind).to.equal('file');
      const [domain] = domains;
      return domain?.hypervisor.kind === 'qemu' ? domain.hypervisor.network?.map((card) => card) : null;
    });
    expect(JSON.stringify(taps)).to.match(/tap-a.*tap-b/);

    const protecting = await readFile(join(root, 'docs', 'PROTECTING.md'), 'utf8');
    const [fragment, ...others] = [...protecting.matchAll(/^```yaml\n(.*?)^```$/gms)].map(
      ([, text = '']) => parse(text) as object,
    );
    expect(others).to.deep.equal([]);
    const [domain] = cluster.domains;
    const network = [{ id: 'lan', tap: 'web0' }];
    const onTwo = {
      ...cluster,
      ...fragment,
      domains: [{ ...domain, hosts: ['alpha', 'beta'], hypervisor: { ...domain?.hypervisor, network } }],
    };
    for (const host of ['alpha', 'beta']) {
      const { listen, witness } = parseCluster(onTwo, host);
      expect(listen.tls?.cert).to.match(new RegExp(`/${host}.crt$`));
      expect(witness.kind).to.equal('etcd');
    }
  });

  it('the program that embeds an agent sees the commits, the failover and the roles', async () => {
    const library = await readFile(join(root, 'docs', 'LIBRARY.md'), 'utf8');
    const program = /```ts\n(.*?)```/s.exec(library)?.[1] ?? '';
    expect(program.trimEnd().split('\n')).to.have.length.at.most(10);

    const directory = await mkdtemp(join(tmpdir(), 'romulus-readme-'));
    await mkdir(join(directory, 'witness'));
    const cluster = {
      ...{ witness: { kind: 'file', directory: 'witness' }, token: 'token', control: '{host}.sock' },
      ...{ http: false, log: { level: 'silent' } },
      hosts: {
        alpha: { address: '127.0.0.1', port: await freePort() },
        beta: { address: '127.0.0.1', port: await freePort() },
      },
      domains: [{ name: 'web', hosts: ['alpha', 'beta'], hypervisor, output: { console: 'none' } }],
    };
    await writeFile(join(directory, 'cluster.yaml'), stringify(cluster));
    await writeFile(programFile, program);
    const agents: Agent[] = [];
    const start = (...args: readonly string[]) => {
      const agent = new Agent(args, directory);
      agents.push(agent);
      return agent;
    };
    try {
      const alpha = start(romulus, 'agent', '--config', 'cluster.yaml', '--host', 'alpha');
      const beta = start(programFile);
      await beta.says(/^web: standby, .*$/m);
      await beta.says(/^epoch 3: \d+ octets$/m);
      await alpha.kill();
      await beta.says(/^web: failover started, from epoch \d+ \(LINK_CLOSED\)$/m);
      await beta.says(/^web: failover completed, from epoch \d+ \(LINK_CLOSED\)$/m);
      await beta.says(/^web: owner, taken over$/m);
    } finally {
      for (const agent of agents) await agent.kill();
      await rm(directory, { recursive: true, force: true });
      await rm(programFile, { force: true });
    }
  }).timeout(120_000);
});
