// What a new user meets when the configuration, or the host, is not as it should be: the sentence, and the exit code.

import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { chmod, writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { expect } from 'chai';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import { Agent, primaryConfig, secondaryConfig } from './agent.js';

describe('an agent that cannot start as it is configured', function () {
  this.timeout(120_000);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  const noQemu = { name: 'other', hypervisor: { kind: 'qemu', binary: 'qemu-system-abacus' } };

  it('exits with 2 when no domain is left that can run, and names key and value', async () => {
    for (const agent of [
      await Agent.start(cleanup, 'primary', primaryConfig({ domain: noQemu })),
      await Agent.start(cleanup, 'secondary', secondaryConfig(1, { domain: noQemu })),
    ]) {
      expect(await agent.ended()).to.equal(2);
      expect(agent.stderr)
        .to.include('install QEMU')
        .and.include('"key":"binary"')
        .and.include('qemu-system-abacus');
    }
  });

  it('exits with 2 for an output that cannot be opened', async () => {
    const file = path.join(await cleanup.directory(), 'no', 'such', 'directory', 'console');
    const agent = await Agent.start(cleanup, 'primary', primaryConfig({ output: { console: { file } } }));
    expect(await agent.ended()).to.equal(2);
    expect(agent.stderr).to.include(file);
  });

  it('goes on with the domains that can run', async () => {
    const config = primaryConfig();
    const [good] = config.domains;
    const domains = [good, { ...good, ...noQemu }];
    const agent = await Agent.start(cleanup, 'primary', { ...config, domains });
    await agent.listening();
    expect(agent.says(/install QEMU/)).to.have.length(1);
    const secondary = await Agent.start(cleanup, 'secondary', secondaryConfig(agent.port));
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
      [{ listen: { port } }, `127.0.0.1:${port}: another process listens there (listen.host, listen.port)`],
      [{ http: { port } }, `127.0.0.1:${port}: another process listens there (http.host, http.port)`],
    ] as const) {
      const agent = await Agent.start(cleanup, 'primary', primaryConfig(changes));
      expect(await agent.ended()).to.equal(1);
      expect(agent.stderr).to.include(words);
    }
  });

  /** Of the documentation's networks: no host has it. */
  const ELSEWHERE = '192.0.2.1';

  it('exits with 2 for an address that this host does not have', async () => {
    for (const [changes, key] of [
      [{ listen: { host: ELSEWHERE, plaintext: true } }, 'listen.host'],
      [{ http: { host: ELSEWHERE, port: 0 } }, 'http.host'],
    ] as const) {
      const agent = await Agent.start(cleanup, 'primary', primaryConfig(changes));
      expect(await agent.ended(), agent.stderr).to.equal(2);
      expect(agent.stderr).to.include('EADDRNOTAVAIL').and.include(ELSEWHERE).and.include(key);
    }
  });

  it('exits with 2 for a port that it may not listen on', async function () {
    if (Number(readFileSync('/proc/sys/net/ipv4/ip_unprivileged_port_start', 'utf8')) <= 1) this.skip();
    const wrapped = process.getuid?.() === 0 ? ['setpriv', '--bounding-set', '-net_bind_service'] : [];
    for (const [changes, key] of [
      [{ listen: { port: 1 } }, 'listen.port'],
      [{ http: { port: 1 } }, 'http.port'],
    ] as const) {
      const agent = await Agent.start(cleanup, 'primary', primaryConfig(changes), wrapped);
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
      for (const agent of [
        await Agent.start(cleanup, 'primary', primaryConfig({ listen: { token } })),
        await Agent.start(cleanup, 'secondary', secondaryConfig(1, { domain: { token } })),
      ]) {
        expect(await agent.ended(), agent.stderr).to.equal(2);
        expect(agent.stderr).to.include('BAD_TOKEN').and.include(token).and.include(words);
      }
    }
  });

  it('says how many files it must be able to open, before it makes a domain', async () => {
    const config = primaryConfig();
    const domains = Array.from({ length: 30 }, (_, index) => ({ ...config.domains[0], name: `d${index}` }));
    const wrapped = ['sh', '-c', 'ulimit -n 160 && exec "$@"', 'sh'];
    const agent = await Agent.start(cleanup, 'primary', { ...config, domains }, wrapped);
    expect(await agent.ended()).to.equal(2);
    expect(agent.stderr).to.match(
      /TOO_FEW_DESCRIPTORS: this process may have 160 files open, and needs 228 for 30 domains/,
    );
    expect(agent.stderr).to.match(/ulimit -n \d+; LimitNOFILE=/);
  });

  it('says so, too, when not even the program can be loaded', async () => {
    const wrapped = ['sh', '-c', 'ulimit -n 30 && exec "$@"', 'sh'];
    const agent = await Agent.start(cleanup, 'primary', primaryConfig(), wrapped);
    expect(await agent.ended()).to.equal(2);
    expect(agent.stderr).to.match(/TOO_FEW_DESCRIPTORS/);
  });
});

describe('a primary whose output is held', function () {
  this.timeout(120_000);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  it('says so at the start, and when that changes', async () => {
    const primary = await Agent.start(cleanup, 'primary', primaryConfig());
    await primary.listening();
    const held = /"level":"warn".*HELD until a secondary protects it.*whenUnprotected: pass/;
    expect(primary.says(held)).to.have.length(1);
    const secondary = await Agent.start(cleanup, 'secondary', secondaryConfig(primary.port));
    await secondary.more('commit');
    await until('the word', () => primary.says(/let out, checkpoint by checkpoint/).length === 1);
    await secondary.kill();
    await until('the other word', () => primary.says(held).length === 2);
    primary.process.kill('SIGTERM');
    expect(await primary.ended()).to.equal(0);
    expect(primary.says(/HELD|let out/)).to.have.length(3);
  });

  it('or that it passes', async () => {
    const agent = await Agent.start(
      cleanup,
      'primary',
      primaryConfig({ output: { whenUnprotected: 'pass' } }),
    );
    await agent.listening();
    expect(agent.says(/let out, unprotected/)).to.have.length(1);
  });
});
