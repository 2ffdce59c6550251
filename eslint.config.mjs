import tseslint from 'typescript-eslint';

export default tseslint.config(...tseslint.configs.recommended, {
  rules: {
    '@typescript-eslint/no-explicit-any': 'off',
    '@typescript-eslint/no-non-null-assertion': 'off',
    '@typescript-eslint/naming-convention': ['error', { selector: 'interface', format: ['PascalCase'], prefix: ['I'] }],
    'no-restricted-syntax': [
      'error',
      {
        selector: "JSXAttribute[name.name='dangerouslySetInnerHTML'], MemberExpression[property.name=/^(inner|outer)HTML$/]",
        message: 'What comes from packages or the index is shown as text only.'
      },
      {
        selector:
          "JSXText[value=/\\p{L}/u], JSXAttribute[name.name=/^(title|label|placeholder|alt|aria-label)$/] > Literal[value=/\\p{L}/u]",
        message: 'Texts are translated: trans.__().'
      }
    ],
    curly: 'error',
    eqeqeq: 'error'
  }
});
