// What a configuration may say: defaults, units, and the words for problems.

import { expect } from 'chai';
import fc from 'fast-check';
import { parseCluster } from '../../src/config/cluster.js';
import { nearest } from '../../src/config/suggest.js';
import { formatSize, parseSize } from '../../src/config/units.js';

const cluster = (domain: object) => ({
  witness: { kind: 'none' },
  hosts: { alpha: { address: '127.0.0.1' } },
  domains: [{ name: 'web', hosts: ['alpha'], hypervisor: { kind: 'embedded' }, ...domain }],
});

describe('config: what is accepted', () => {
  it('fills in defaults and resolves sizes', () => {
    const config = parseCluster(
      cluster({
        checkpoint: { slab: '1 GiB' },
        output: { limit: 8192 },
        hypervisor: { kind: 'embedded', memory: '128MiB' },
      }),
      'alpha',
    );
    expect(config.listen).to.deep.equal({
      host: '127.0.0.1',
      port: 7300,
      tls: undefined,
      token: undefined,
      plaintext: false,
      handshakeTimeoutMs: 2000,
      maxPendingHandshakes: 16,
      socketBufferBytes: 16 * 2 ** 20,
    });
    expect(config.log).to.deep.equal({ level: 'info', format: 'auto' });
    expect(config.hooks).to.deep.equal({ commandTimeoutMs: 10_000 });
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
      limitBytes: 8192,
    });
    expect(web?.hypervisor).to.deep.equal({
      kind: 'embedded',
      memoryBytes: 128 * 2 ** 20,
      boot: { kind: 'guest', dirtyPages: 200, workingSetPages: 1024, tickMs: 50, diskBlocks: 0 },
    });
  });

  it('starts relative paths from the directory of the file', () => {
    const hypervisor = { kind: 'embedded', image: { bios: 'b', disk: 'd/disk.img' } };
    const [web] = parseCluster(cluster({ hypervisor }), 'alpha', { directory: '/etc/romulus' }).domains;
    expect(web?.hypervisor.kind === 'embedded' && web.hypervisor.boot).to.deep.equal({
      kind: 'image',
      bios: '/etc/romulus/b',
      disk: '/etc/romulus/d/disk.img',
    });
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
