// What a configuration may say: defaults, units, and the words for problems.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { loadPrimaryConfig, parsePrimaryConfig, parseSecondaryConfig } from '../../src/config/load.js';
import { nearest } from '../../src/config/suggest.js';
import { formatSize, parseSize } from '../../src/config/units.js';
import { problems } from './refused.js';

const hypervisor = { kind: 'embedded' };
const qemu = { kind: 'qemu' };
const domain = { name: 'web', hypervisor };
const standby = { ...domain, primary: 'ws://localhost:7300' };
const primary = (changes: object) => ({ domains: [{ ...domain, ...changes }] });
const secondary = (changes: object) => ({ domains: [{ ...standby, ...changes }] });

async function withFile<Result>(content: string, use: (file: string) => Promise<Result>): Promise<Result> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'romulus-config-'));
  try {
    const file = path.join(directory, 'primary.yaml');
    await writeFile(file, content);
    return await use(file);
  } finally {
    await rm(directory, { recursive: true });
  }
}

describe('config: what is accepted', () => {
  it('fills in defaults and resolves sizes', () => {
    const config = parsePrimaryConfig(
      primary({
        checkpoint: { slab: '1 GiB' },
        output: { limit: 8192 },
        hypervisor: { kind: 'embedded', memory: '128MiB' },
      }),
    );
    expect(config.listen).to.deep.equal({
      host: '127.0.0.1',
      port: 7300,
      plaintext: false,
      handshakeTimeoutMs: 2000,
      maxPendingHandshakes: 16,
      socketBufferBytes: 16 * 2 ** 20,
    });
    expect(config.http).to.deep.equal({ host: '127.0.0.1', port: 9300 });
    const [web] = config.domains;
    expect(web?.checkpoint).to.deep.equal({
      intervalMs: 50,
      windowEpochs: 1,
      acknowledgeTimeoutMs: 5000,
      switchoverTimeoutMs: 5000,
      hypervisorTimeoutMs: 10_000,
      slabBytes: 2 ** 30,
    });
    expect(web?.output).to.deep.equal({
      console: { kind: 'stdout' },
      whenUnprotected: 'hold',
      limitBytes: 8192,
    });
    expect(web?.hypervisor).to.deep.equal({
      kind: 'embedded',
      memoryBytes: 128 * 2 ** 20,
      boot: { kind: 'guest', dirtyPages: 200, workingSetPages: 1024, tickMs: 50 },
    });
  });

  it('has no HTTP side where it is switched off', () => {
    expect(parsePrimaryConfig({ ...primary({}), http: false }).http).to.equal(false);
  });

  it('starts relative paths from the directory of the file', async () => {
    await withFile(
      'domains: [{name: web, hypervisor: {kind: embedded, image: {bios: b, disk: d/disk.img}}}]',
      async (file) => {
        const config = await loadPrimaryConfig(file);
        const { hypervisor } = config.domains[0] ?? {};
        expect(hypervisor?.kind === 'embedded' && hypervisor.boot).to.deep.equal({
          kind: 'image',
          bios: path.join(path.dirname(file), 'b'),
          disk: path.join(path.dirname(file), 'd/disk.img'),
        });
      },
    );
  });

  it('a new guest whose disks are shared waits for the secondary, if nothing else is said', () => {
    const shared = { ...qemu, sharedDisks: ['d'], fence: 'external' };
    const startOf = (changes: object) => parsePrimaryConfig(primary(changes)).domains[0]?.start;
    expect(startOf({ hypervisor: shared })).to.equal('with-secondary');
    expect(startOf({ hypervisor: shared, start: 'immediately' })).to.equal('immediately');
    expect(startOf({ hypervisor: { ...shared, qmp: 'q' } })).to.equal('immediately');
    expect(startOf({ hypervisor: qemu })).to.equal('immediately');
  });

  it('takes a standby in a QEMU that is started here only', () => {
    const attached = () => parseSecondaryConfig(secondary({ hypervisor: { ...qemu, qmp: '/q' } }));
    expect(problems(attached)).to.deep.equal(["domains[0].hypervisor.qmp: '/q'"]);
    expect(parseSecondaryConfig(secondary({ hypervisor: qemu })).domains[0]?.hypervisor.kind).to.equal(
      'qemu',
    );
  });

  it('takes plaintext off loopback only where it is asked for, TLS anywhere', () => {
    const tls = { cert: 'c', key: 'k', ca: 'a' };
    const listen = (section: object, names?: readonly string[]) => () =>
      parsePrimaryConfig({ ...primary(names ? { secondaryNames: names } : {}), listen: section });
    expect(problems(listen({ host: '0.0.0.0' }))).to.deep.equal(["listen.host: '0.0.0.0'"]);
    expect(listen({ host: '0.0.0.0', plaintext: true })().listen.plaintext).to.equal(true);
    expect(listen({ host: '0.0.0.0', tls }, ['b'])().listen.tls?.cert).to.equal(path.resolve('c'));
    expect(problems(listen({ plaintext: true, tls }, ['b']))).to.deep.equal(['listen.plaintext: true']);

    const dial = (section: object) => () => parseSecondaryConfig(secondary(section));
    const far = 'ws://10.0.0.1:7300';
    expect(problems(dial({ primary: far }))).to.deep.equal([`domains[0].primary: '${far}'`]);
    expect(dial({ primary: far, plaintext: true })().domains[0]?.primary).to.equal(far);
    expect(problems(dial({ primary: 'wss://10.0.0.1' }))).to.deep.equal(['domains[0].tls: missing']);
    expect(dial({ primary: 'wss://10.0.0.1', tls })().domains[0]?.tls?.ca).to.equal(path.resolve('a'));
    expect(problems(dial({ tls }))).to.deep.equal([`domains[0].primary: '${standby.primary}'`]);
    expect(dial({ primary: 'ws://[::1]:7300' })().domains[0]?.primary).to.equal('ws://[::1]:7300');
  });

  it('with TLS, says whose certificate counts: of the secondary by name, or any; of the primary as it is dialled', () => {
    const tls = { cert: 'c', key: 'k', ca: 'a' };
    const names =
      (secondaryNames?: unknown, listen: object = { tls }) =>
      () =>
        parsePrimaryConfig({ ...primary(secondaryNames === undefined ? {} : { secondaryNames }), listen });
    const key = 'domains[0].secondaryNames';
    expect(problems(names())).to.deep.equal([`${key}: missing`]);
    expect(problems(names(['beta'], {}))).to.deep.equal([`${key}: [ 'beta' ]`]);
    expect(problems(names([]))).to.deep.equal([`${key}: []`]);
    expect(problems(names('beta'))).to.deep.equal([`${key}: 'beta'`]);
    for (const name of ['*.example.org', '.example.org', 'a b', '-a', 'a..b']) {
      expect(problems(names([name])), name).to.deep.equal([`${key}[0]: '${name}'`]);
    }
    const good = ['beta', 'beta.example.org', '192.168.77.12', 'fe80::1'];
    expect(names(good)().domains[0]?.secondaryNames).to.deep.equal(good);
    expect(names('any')().domains[0]?.secondaryNames).to.equal('any');

    const dial = (section: object) => () => parseSecondaryConfig(secondary(section));
    expect(problems(dial({ primaryName: 'alpha' }))).to.deep.equal(["domains[0].primaryName: 'alpha'"]);
    const far = { primary: 'wss://10.0.0.1', tls, primaryName: 'alpha' };
    expect(dial(far)().domains[0]?.primaryName).to.equal('alpha');
  });
});

describe('config: units and words', () => {
  it('reads the sizes that it writes', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), (octets) => {
        expect(parseSize(formatSize(octets))).to.equal(octets);
      }),
    );
    expect(formatSize(64 * 2 ** 20)).to.equal('64MiB');
    for (const wrong of [
      '',
      'MiB',
      '64',
      '-1MiB',
      '1.5MiB',
      '64 MB',
      '1e3B',
      '9999999999TiB',
      '64  MiB',
      '64MiB\n',
    ]) {
      expect(parseSize(wrong), wrong).to.equal(null);
    }
    for (const wrong of [-1, 1.5, Number.NaN, Infinity, 2 ** 53]) expect(parseSize(wrong)).to.equal(null);
  });

  it('suggests what is near and nothing else', () => {
    const known = ['host', 'port', 'intervalMs', 'windowEpochs'];
    expect(nearest('prot', known)).to.equal('port');
    expect(nearest('interval', known)).to.equal('intervalMs');
    expect(nearest('windowepoch', known)).to.equal('windowEpochs');
    expect(nearest('zzz', known)).to.equal(null);
    expect(nearest('', known)).to.equal(null);
    expect(nearest('x'.repeat(1_000_000), known)).to.equal(null);
  });
});
