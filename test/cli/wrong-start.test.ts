// What a new user meets when the configuration, or the host, is not as it should be: the sentence, and the exit code.

import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { chmod, rename, writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { expect } from 'chai';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import { Agent, clusterOf } from './agent.js';

describe('an agent that cannot start as it is configured', function () {
  this.timeout(120_000);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  const noQemu = { name: 'other', hypervisor: { kind: 'qemu', binary: 'qemu-system-abacus' } };

  it('names key and value of a domain that cannot be made, tries on, and exits with 2 when it is told to', async () => {
    const agent = await Agent.start(cleanup, 'alpha', await clusterOf(cleanup, { domain: noQemu }));
    await until('it has tried twice', () => agent.says(/install QEMU/).length === 2, 30_000);
    agent.process.kill('SIGTERM');
    expect(await agent.ended()).to.equal(2);
    expect(agent.stderr).to.include('"key":"binary"').and.include('qemu-system-abacus');
  });

  it('exits with 2 for an output that cannot be opened, when it is told to', async () => {
    const file = path.join(await cleanup.directory(), 'no', 'such', 'directory', 'console');
    const agent = await Agent.start(
      cleanup,
      'alpha',
      await clusterOf(cleanup, { output: { console: { file } } }),
    );
    await until('it says so', () => agent.stderr.includes(file), 30_000);
    agent.process.kill('SIGTERM');
    expect(await agent.ended()).to.equal(2);
  });

  it('goes on with the domains that can run', async () => {
    const cluster = await clusterOf(cleanup);
    const [good] = cluster.domains;
    const agent = await Agent.start(cleanup, 'alpha', {
      ...cluster,
      domains: [good, { ...good, ...noQemu }],
    });
    await agent.listening();
    const secondary = await Agent.start(cleanup, 'beta', cluster);
    await secondary.more('commit');
    await until('the other is tried', () => agent.says(/install QEMU/).length > 0, 30_000);
    await secondary.more('commit');
    agent.process.kill('SIGTERM');
    expect(await agent.ended()).to.equal(2);
  });

  it('says of a port that is in use which key names it', async () => {
    const holder = net.createServer().listen(0, '127.0.0.1');
    cleanup.add(() => holder.close());
    await once(holder, 'listening');
    const { port } = holder.address() as net.AddressInfo;
    for (const [changes, words] of [
      [{ alpha: { port } }, '(in hosts, of this one: listen or address, port)'],
      [{ file: { http: { port } } }, '(http.host, http.port)'],
    ] as const) {
      const agent = await Agent.start(cleanup, 'alpha', await clusterOf(cleanup, changes));
      expect(await agent.ended()).to.equal(1);
      expect(agent.stderr).to.include(`127.0.0.1:${port}: another process listens there ${words}`);
    }
  });

  /** Of the documentation's networks: no host has it. */
  const ELSEWHERE = '192.0.2.1';

  it('exits with 2 for an address that this host does not have', async () => {
    for (const [changes, key] of [
      [{ alpha: { listen: ELSEWHERE }, file: { plaintext: true } }, 'in hosts'],
      [{ file: { http: { host: ELSEWHERE, port: 0 } } }, 'http.host'],
    ] as const) {
      const agent = await Agent.start(cleanup, 'alpha', await clusterOf(cleanup, changes));
      expect(await agent.ended(), agent.stderr).to.equal(2);
      expect(agent.stderr).to.include('EADDRNOTAVAIL').and.include(ELSEWHERE).and.include(key);
    }
  });

  it('exits with 2 for a port that it may not listen on', async function () {
    if (Number(readFileSync('/proc/sys/net/ipv4/ip_unprivileged_port_start', 'utf8')) <= 1) this.skip();
    const wrapped = process.getuid?.() === 0 ? ['setpriv', '--bounding-set', '-net_bind_service'] : [];
    for (const [changes, key] of [
      [{ alpha: { port: 1 } }, 'in hosts'],
      [{ file: { http: { port: 1 } } }, 'http.port'],
    ] as const) {
      const agent = await Agent.start(cleanup, 'alpha', await clusterOf(cleanup, changes), wrapped);
      expect(await agent.ended(), agent.stderr).to.equal(2);
      expect(agent.stderr).to.include('EACCES').and.include('127.0.0.1:1').and.include(key);
    }
  });

  it('exits with 2 for a token that others can read, or that cannot be had', async () => {
    const directory = await cleanup.directory();
    const open = path.join(directory, 'open');
    await writeFile(open, 'x'.repeat(64));
    await chmod(open, 0o644);
    for (const [token, words] of [
      [open, 'can be read by others'],
      [directory, 'is not a file'],
      [path.join(open, 'token'), 'the token cannot be had'],
    ] as const) {
      const agent = await Agent.start(cleanup, 'alpha', await clusterOf(cleanup, { file: { token } }));
      expect(await agent.ended(), agent.stderr).to.equal(2);
      expect(agent.stderr).to.include('BAD_TOKEN').and.include(token).and.include(words);
    }
  });

  it('says how many files it must be able to open, before it makes a domain', async () => {
    const config = await clusterOf(cleanup);
    const domains = Array.from({ length: 30 }, (_, index) => ({ ...config.domains[0], name: `d${index}` }));
    const wrapped = ['sh', '-c', 'ulimit -n 160 && exec "$@"', 'sh'];
    const agent = await Agent.start(cleanup, 'alpha', { ...config, domains }, wrapped);
    expect(await agent.ended()).to.equal(2);
    expect(agent.stderr).to.match(
      /TOO_FEW_DESCRIPTORS: this process may have 160 files open, and needs 228 for 30 domains/,
    );
    expect(agent.stderr).to.match(/ulimit -n \d+; LimitNOFILE=/);
  });

  it('says so, too, when not even the program can be loaded', async () => {
    const wrapped = ['sh', '-c', 'ulimit -n 30 && exec "$@"', 'sh'];
    const agent = await Agent.start(cleanup, 'alpha', await clusterOf(cleanup), wrapped);
    expect(await agent.ended()).to.equal(2);
    expect(agent.stderr).to.match(/TOO_FEW_DESCRIPTORS/);
  });
});

describe('an agent that runs a domain', function () {
  this.timeout(120_000);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  it('says what becomes of its output, at the start and when that changes', async () => {
    const cluster = await clusterOf(cleanup);
    const { directory } = cluster.witness;
    const primary = await Agent.start(cleanup, 'alpha', cluster);
    const says = (words: RegExp, count: number) =>
      until(String(words), () => primary.says(words).length === count, 30_000);
    const alone = /"level":"warn".*let out, unprotected: no other host may run it/;
    await says(alone, 1);
    const secondary = await Agent.start(cleanup, 'beta', cluster);
    await secondary.more('commit');
    await says(/let out, checkpoint by checkpoint/, 1);
    // Nobody can be asked.
    await rename(directory, `${directory}.away`);
    await secondary.kill();
    await says(/"level":"warn".*held until the witness says that no other host may run it/, 1);
    await rename(`${directory}.away`, directory);
    await says(alone, 2);
    primary.process.kill('SIGTERM');
    expect(await primary.ended()).to.equal(0);
    expect(primary.says(/what the domain says is/)).to.have.length(4);
  });
});
