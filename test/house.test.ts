// The house's one structural rule, that imports point downwards only, is held by the linter; these tests hold the
// linter to it.

import { ESLint } from 'eslint';
import { expect } from 'chai';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));

async function complaints(file: string, specifier: string): Promise<string[]> {
  // Only the import rule is asked: the file does not exist, so rules that need types cannot run.
  const eslint = new ESLint({
    cwd: root,
    ruleFilter: ({ ruleId }) => ruleId === 'no-restricted-imports',
    overrideConfig: { languageOptions: { parserOptions: { projectService: false, project: false } } },
  });
  const [result] = await eslint.lintText(`import '${specifier}';\n`, { filePath: `${root}${file}` });
  return (result?.messages ?? []).map((message) => message.message);
}

describe('house', function () {
  this.timeout(60_000);

  const allowed: [string, string][] = [
    ['src/cli/x.ts', '../service/primary.js'],
    ['src/service/x.ts', '../save/save.js'],
    ['src/service/x.ts', '../hypervisor/embedded/domain.js'],
    ['src/save/x.ts', '../guest/ops.js'],
    ['src/save/x.ts', '../hypervisor/port.js'],
    ['src/guest/x86-hvm/x.ts', '../../hypervisor/port.js'],
    ['src/hypervisor/embedded/x.ts', '../port.js'],
    ['src/hypervisor/embedded/x.ts', '../../stream/format.js'],
    ['src/stream/x.ts', '../errors.js'],
  ];
  for (const [file, specifier] of allowed) {
    it(`${file} may import ${specifier}`, async () => {
      expect(await complaints(file, specifier)).to.deep.equal([]);
    });
  }

  const refused: [string, string][] = [
    ['src/service/x.ts', '../cli/main.js'],
    ['src/save/x.ts', '../service/primary.js'],
    ['src/save/x.ts', '../restore/restore.js'],
    ['src/channel/x.ts', '../failover/witness.js'],
    ['src/restore/x.ts', '../hypervisor/memory/domain.js'],
    ['src/guest/x86-hvm/x.ts', '../../save/context.js'],
    ['src/hypervisor/embedded/x.ts', '../../guest/ops.js'],
    ['src/hypervisor/embedded/x.ts', '../memory/domain.js'],
    ['src/stream/x.ts', '../hypervisor/port.js'],
    ['src/stream/records/x.ts', '../../save/context.js'],
  ];
  for (const [file, specifier] of refused) {
    it(`${file} must not import ${specifier}`, async () => {
      expect(await complaints(file, specifier)).to.have.lengthOf(1);
    });
  }
});
