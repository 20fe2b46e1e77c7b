// The program of docs/LIBRARY.md, and the commands of the README and of docs/PROTECTING.md that write configurations, are
// run as they stand there.

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { parse, stringify } from 'yaml';
import { parsePrimaryConfig, parseSecondaryConfig } from '../src/config/load.js';
import type { SupervisorMessage } from '../src/cli/supervisor.js';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../../', import.meta.url));
const romulus = join(root, 'dist', 'src', 'cli', 'main.js');
// Inside the package, so that its own name can be imported.
const programFile = join(root, 'dist', 'test', 'readme-program.mjs');

const hypervisor = { kind: 'embedded', memory: '8MiB', guest: { workingSetPages: 256, dirtyPages: 50 } };
const quiet = { http: false, log: { level: 'silent' } };

interface Written {
  readonly domains: readonly object[];
}

/** What the README's commands write, run as they stand there. */
async function configurations(readme: string): Promise<{ primary: Written; secondary: Written }> {
  const commands = [...readme.matchAll(/^```sh\n(.*?)^```$/gms)]
    .map(([, text = '']) => text)
    .find((text) => text.includes('> web-secondary.yaml'));
  const home = await mkdtemp(join(tmpdir(), 'romulus-readme-'));
  try {
    await mkdir(join(home, '.cache', 'romulus', 'qemu-guest-0'), { recursive: true });
    await run('sh', ['-euc', commands ?? ''], { cwd: home, env: { ...process.env, HOME: home } });
    const read = async (side: string) =>
      parse(await readFile(join(home, `web-${side}.yaml`), 'utf8')) as Written;
    return { primary: await read('primary'), secondary: await read('secondary') };
  } finally {
    await rm(home, { recursive: true });
  }
}

describe('README', () => {
  it('what it writes for a QEMU guest is a configuration, on one host and on two', async () => {
    const readme = await readFile(join(root, 'README.md'), 'utf8');
    const written = await configurations(readme);
    const primary = parsePrimaryConfig(written.primary);
    const secondary = parseSecondaryConfig(written.secondary);
    const withoutTap = ({ hypervisor }: (typeof primary.domains | typeof secondary.domains)[number]) => ({
      ...hypervisor,
      network: null,
    });
    expect(primary.domains.map(withoutTap)).to.deep.equal(secondary.domains.map(withoutTap));

    const protecting = await readFile(join(root, 'docs', 'PROTECTING.md'), 'utf8');
    const fragments = [...protecting.matchAll(/^```yaml\n(.*?)^```$/gms)].map(
      ([, text = '']) => parse(text) as object,
    );
    expect(fragments).to.have.length(3);
    const [onAlpha] = written.primary.domains;
    const [onBeta] = written.secondary.domains;
    const alpha = { ...fragments[0], domains: [{ ...onAlpha, ...fragments[1] }] };
    expect(parsePrimaryConfig(alpha).listen.tls).to.not.equal(undefined);
    expect(parseSecondaryConfig({ domains: [{ ...onBeta, ...fragments[2] }] }).domains).to.have.length(1);
  });

  it('the program that embeds a secondary sees the commits and the failover', async () => {
    const library = await readFile(join(root, 'docs', 'LIBRARY.md'), 'utf8');
    const program = /```ts\n(.*?)```/s.exec(library)?.[1] ?? '';
    expect(program.trimEnd().split('\n')).to.have.length.at.most(10);

    const directory = await mkdtemp(join(tmpdir(), 'romulus-readme-'));
    await mkdir(join(directory, 'config'));
    const domains = [{ name: 'web', hypervisor, output: { console: 'none' } }];
    const primaryFile = join(directory, 'config', 'primary.yaml');
    await writeFile(primaryFile, stringify({ ...quiet, listen: { port: 0 }, domains }));
    const primary = spawn(process.execPath, [romulus, 'primary', '--config', primaryFile], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    const primaryClosed = once(primary, 'close');
    try {
      const [message] = (await once(primary, 'message')) as [SupervisorMessage];
      const port = message.kind === 'listening' ? message.port : null;
      await writeFile(
        join(directory, 'config', 'secondary.yaml'),
        stringify({ ...quiet, domains: [{ ...domains[0], primary: `ws://127.0.0.1:${String(port)}` }] }),
      );
      await writeFile(programFile, program);
      const child = spawn(process.execPath, [programFile], {
        cwd: directory,
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const childClosed = once(child, 'close');
      let printed = '';
      try {
        for await (const text of child.stdout.setEncoding('utf8')) {
          printed += String(text);
          if (/^epoch 3: \d+ octets$/m.test(printed)) primary.kill('SIGKILL');
          if (printed.includes('failover completed')) break;
        }
      } finally {
        child.kill('SIGKILL');
        await childClosed;
      }
      expect(printed).to.match(/^epoch 0: \d+ octets$/m);
      expect(printed).to.match(/^web: failover started, from epoch \d+ \(LINK_CLOSED\)$/m);
      expect(printed).to.match(/^web: failover completed, from epoch \d+ \(LINK_CLOSED\)$/m);
    } finally {
      primary.kill('SIGKILL');
      await primaryClosed;
      await rm(directory, { recursive: true, force: true });
      await rm(programFile, { force: true });
    }
  });
});
