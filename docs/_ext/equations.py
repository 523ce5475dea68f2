"""The equations of the docstrings, which are written in plain signs there, in LaTeX for the
reference.

{the equation, exactly as in the docstring (line breaks aside): LaTeX}. A test finds each of them
in the source.
"""

EQUATIONS = {
    # functional
    "H = sum_i J_i^T L_i J_i": r"H = \sum_i J_i^\top L_i J_i",
    "diag(H) = sum_i diag(J_i^T L_i J_i)": r"\operatorname{diag} H = \sum_i \operatorname{diag}(J_i^\top L_i J_i)",
    "H of a weight ~ A (x) B / N with A = sum a a^T over the layer's inputs and B = sum g g^T over its derivatives": (
        r"H \text{ of a weight} \approx A \otimes B / N \text{ with } A = \sum a a^\top \text{ over the layer's inputs and } "
        r"B = \sum g g^\top \text{ over its derivatives}"
    ),
    "sum_i diag(J_i^T R_i R_i^T J_i)": r"\sum_i \operatorname{diag}(J_i^\top R_i R_i^\top J_i)",
    "J_i = d f(x_i; w) / d w": r"J_i = \partial f(x_i; w) / \partial w",
    # subset
    "v_l = 1 / (F_l + d) with F = diag(sum_i J_i^T L_i J_i)": (
        r"v_l = 1 / (F_l + d) \text{ with } F = \operatorname{diag}\bigl(\sum_i J_i^\top L_i J_i\bigr)"
    ),
    # priors
    "w ~ N(0, scale^2)": r"w \sim N(0, \mathtt{scale}^2)",
    "w ~ N(0, gain^2 / fan-in)": r"w \sim N(0, \mathtt{gain}^2 / \text{fan-in})",
    "N(0, bias_scale^2)": r"N(0, \mathtt{bias\_scale}^2)",
    "p(w) = exp(-|w| / scale) / (2 scale)": (r"p(w) = \exp(-|w| / \mathtt{scale}) / (2\, \mathtt{scale})"),
    "w ~ scale * t(df)": r"w \sim \mathtt{scale} \cdot t_{\mathtt{df}}",
    "w | s ~ N(0, s^2)": r"w \mid s \sim N(0, s^2)",
    "w ~ N(w_0, scale^2)": r"w \sim N(w_0, \mathtt{scale}^2)",
    # likelihoods
    "y ~ Categorical(softmax(f))": r"y \sim \operatorname{Categorical}(\operatorname{softmax} f)",
    "y ~ Bernoulli(sigmoid(f))": r"y \sim \operatorname{Bernoulli}(1 / (1 + e^{-f}))",
    "y ~ Poisson(exp(f))": r"y \sim \operatorname{Poisson}(e^f)",
    "m = exp(f) and variance m + m^2 / concentration": (
        r"m = e^f \text{ and variance } m + m^2 / \mathtt{concentration}"
    ),
    "y ~ N(f, scale^2)": r"y \sim N(f, \mathtt{scale}^2)",
    "y ~ f + scale * t(df)": r"y \sim f + \mathtt{scale} \cdot t_{\mathtt{df}}",
    "y ~ N(m, exp(s)^2)": r"y \sim N(m, e^{2s})",
    "E[d log p/df d log p/df^T]": r"E[\nabla_f \log p\; \nabla_f \log p^\top]",
    # distributions
    "p(y) = Re w(z) / (sigma sqrt(2 pi)), z = (y - loc + i gamma) / (sigma sqrt 2)": (
        r"p(y) = \frac{\operatorname{Re} w(z)}{\sigma \sqrt{2\pi}},\; z = \frac{y - \mathtt{loc} + i\gamma}{\sigma\sqrt 2}"
    ),
    "P(y = 1) = 1/2 + Im psi(1/2 + (scale + i loc) / (2 pi)) / pi": (
        r"P(y = 1) = \frac12 + \frac1\pi \operatorname{Im} \psi\Bigl(\frac12 + \frac{\mathtt{scale} + i\, \mathtt{loc}}{2\pi}\Bigr)"
    ),
    # models
    "w_S ~ prior; y_i ~ likelihood(f(x_i; w_S, w_rest))": (
        r"w_S \sim \text{prior},\; y_i \sim \text{likelihood}(f(x_i; w_S, w_{\text{rest}}))"
    ),
    # guides
    "q(w) = N(w*, (H + P)^-1)": r"q(w) = N(w^*, (H + P)^{-1})",
    "(H + P)^-1": r"(H + P)^{-1}",
    "log p(y) ~ log p(y | w*) + log p(w*) + k/2 log 2 pi - 1/2 log |H + P|": (
        r"\log p(y) \approx \log p(y \mid w^*) + \log p(w^*) + \tfrac k2 \log 2\pi - \tfrac12 \log |H + P|"
    ),
    "N(f(x; w*), J (H + P)^-1 J^T)": r"N\bigl(f(x; w^*),\, J (H + P)^{-1} J^\top\bigr)",
    "q(w) = prod_j N(w_j; m_j, s_j^2)": r"q(w) = \prod_j N(w_j; m_j, s_j^2)",
    "N(f(x; m), J diag(s^2) J^T)": r"N\bigl(f(x; m),\, J \operatorname{diag}(s^2) J^\top\bigr)",
    "-ELBO = KL(q(w) || p(w)) - E_q[log p(y | w)]": (
        r"-\mathrm{ELBO} = \mathrm{KL}(q(w) \,\|\, p(w)) - E_q[\log p(y \mid w)]"
    ),
    # fit
    "theta_t+1 = step(theta_t, grad loss(theta_t; batch_t))": (
        r"\theta_{t+1} = \mathrm{step}\bigl(\theta_t, \nabla \mathrm{loss}(\theta_t; \mathrm{batch}_t)\bigr)"
    ),
    # predict
    "f(x; m) + J(x) (w - m)": r"f(x; m) + J(x)(w - m)",
    "p(y | x, D) = 1/S sum_s p(y | f(x; w_s), ...)": (
        r"p(y \mid x, D) = \frac1S \sum_s p\bigl(y \mid f(x; w_s), \dots\bigr)"
    ),
    "p(y) = softmax(f / sqrt(1 + pi/8 diag V))": (
        r"p(y) = \operatorname{softmax}\bigl(f / \sqrt{1 + \tfrac{\pi}{8} \operatorname{diag} V}\bigr)"
    ),
    "alpha_k = (1 - 2/K + exp(f_k) / K^2 sum_j exp(-f_j)) / V_kk": (
        r"\alpha_k = \Bigl(1 - \frac2K + \frac{e^{f_k}}{K^2} \sum_j e^{-f_j}\Bigr) / V_{kk}"
    ),
    "p(y) = N(f, V + scale^2)": r"p(y) = N(f, V + \mathtt{scale}^2)",
    "p(y_i) = 1/S sum_s p_s(y_i)": r"p(y_i) = \frac1S \sum_s p_s(y_i)",
    "1/S sum_s p_s": r"\frac1S \sum_s p_s",
    "log 1/S sum_s p_s(y)": r"\log \frac1S \sum_s p_s(y)",
    "E_s[Var[y | draw s]]": r"E_s[\operatorname{Var}[y \mid \text{draw } s]]",
    "Var_s[E[y | draw s]]": r"\operatorname{Var}_s[E[y \mid \text{draw } s]]",
    "I[y; draw] = H[p] - 1/S sum_s H[p_s]": r"I[y; \text{draw}] = H[p] - \frac1S \sum_s H[p_s]",
    # metrics
    "NLL = -mean_i log p_i[y_i]": r"\mathrm{NLL} = -\frac1n \sum_i \log p_i(y_i)",
    "-mean_i log mean_s p_s(y_i)": r"-\frac1n \sum_i \log \frac1S \sum_s p_s(y_i)",
    "Brier = mean_i sum_k (p_ik - 1[y_i = k])^2": (
        r"\mathrm{Brier} = \frac1n \sum_i \sum_k (p_{ik} - \mathbb 1[y_i = k])^2"
    ),
    "REL = sum_k sum_b (n_kb/n) (p̄_kb - ō_kb)^2, RES = sum_k sum_b (n_kb/n) (ō_kb - ō_k)^2, UNC = sum_k ō_k (1 - ō_k)": (
        r"\mathrm{REL} = \sum_k \sum_b \frac{n_{kb}}{n} (\bar p_{kb} - \bar o_{kb})^2,\;"
        r" \mathrm{RES} = \sum_k \sum_b \frac{n_{kb}}{n} (\bar o_{kb} - \bar o_k)^2,\;"
        r" \mathrm{UNC} = \sum_k \bar o_k (1 - \bar o_k)"
    ),
    "Accuracy = mean_i 1[argmax_k p_ik = y_i]": (
        r"\mathrm{Accuracy} = \frac1n \sum_i \mathbb 1[\arg\max_k p_{ik} = y_i]"
    ),
    "ECE = sum_b (n_b / n) |acc_b - conf_b|": (
        r"\mathrm{ECE} = \sum_b \frac{n_b}{n} |\mathrm{acc}_b - \mathrm{conf}_b|"
    ),
    "MCE = max_b |acc_b - conf_b|": r"\mathrm{MCE} = \max_b |\mathrm{acc}_b - \mathrm{conf}_b|",
    "mean_k sum_b (n_kb / n) |share of class k in bin b - mean p_k in bin b|": (
        r"\frac1K \sum_k \sum_b \frac{n_{kb}}{n}"
        r" |\text{share of class } k \text{ in bin } b - \text{mean } p_k \text{ in bin } b|"
    ),
    "acc_b and conf_b": r"\mathrm{acc}_b \text{ and } \mathrm{conf}_b",
    "Mean m = mean(values), se = sd(values) / sqrt(n), interval m ± z se": (
        r"\text{Mean } m = \frac1n \sum_i \text{values}_i,\; \mathrm{se} = \mathrm{sd} / \sqrt n,\;"
        r" \text{interval } m \pm z\, \mathrm{se}"
    ),
    "H[p] = -sum_k p_k log p_k": r"H[p] = -\sum_k p_k \log p_k",
    "H[mean_s p_s] = mean_s H[p_s] + I": (r"H\bigl[\tfrac1S \sum_s p_s\bigr] = \tfrac1S \sum_s H[p_s] + I"),
    "I[y; w] = H[mean_s p_s] - mean_s H[p_s]": (r"I[y; w] = H\bigl[\tfrac1S \sum_s p_s\bigr] - \tfrac1S \sum_s H[p_s]"),
    "Var[y] = mean_s v_s + var_s(m_s)": r"\operatorname{Var}[y] = \frac1S \sum_s v_s + \operatorname{var}_s(m_s)",
    "[q_{(1 - level)/2}, q_{(1 + level)/2}]": r"[q_{(1 - \mathtt{level})/2},\, q_{(1 + \mathtt{level})/2}]",
    "mean_i 1[lower_i <= y_i <= upper_i]": (r"\frac1n \sum_i \mathbb 1[\mathtt{lower}_i \le y_i \le \mathtt{upper}_i]"),
    "mean_i (upper_i - lower_i)": r"\frac1n \sum_i (\mathtt{upper}_i - \mathtt{lower}_i)",
    "IS = mean_i { (u_i - l_i) + (2 / a) (l_i - y_i)_+ + (2 / a) (y_i - u_i)_+ }, a = 1 - nominal": (
        r"\mathrm{IS} = \frac1n \sum_i \bigl\{(u_i - l_i) + \tfrac2a (l_i - y_i)_+ + \tfrac2a (y_i - u_i)_+\bigr\},\;"
        r" a = 1 - \mathtt{nominal}"
    ),
    "AUROC = P(s_out > s_in) + P(s_out = s_in) / 2": (
        r"\mathrm{AUROC} = P(s_{\text{out}} > s_{\text{in}}) + \tfrac12 P(s_{\text{out}} = s_{\text{in}})"
    ),
    "AUPR = sum_t (recall_t - recall_{t-1}) precision_t": (
        r"\mathrm{AUPR} = \sum_t (\mathrm{recall}_t - \mathrm{recall}_{t-1})\, \mathrm{precision}_t"
    ),
    "RMSE = sqrt(mean_i (m_i - y_i)^2)": r"\mathrm{RMSE} = \sqrt{\frac1n \sum_i (m_i - y_i)^2}",
    "CRPS = mean_i { E|Y - y_i| - E|Y - Y'| / 2 }": (
        r"\mathrm{CRPS} = \frac1n \sum_i \bigl\{E|Y - y_i| - \tfrac12 E|Y - Y'|\bigr\}"
    ),
    "risk(c) =": r"\mathrm{risk}(c) =",
    "AURC = mean_i risk(i / n)": r"\mathrm{AURC} = \frac1n \sum_i \mathrm{risk}(i / n)",
    "rAULC = AULC(scores) / AULC(errors), AULC(u) = mean_i F_i(u) / accuracy - 1": (
        r"\mathrm{rAULC} = \mathrm{AULC}(\text{scores}) / \mathrm{AULC}(\text{errors}),\;"
        r" \mathrm{AULC}(u) = \frac1n \sum_i F_i(u) / \mathrm{accuracy} - 1"
    ),
    "score = reliability - resolution + uncertainty + residual": (
        r"\text{score} = \text{reliability} - \text{resolution} + \text{uncertainty} + \text{residual}"
    ),
    "total = aleatoric + epistemic": r"\text{total} = \text{aleatoric} + \text{epistemic}",
    # arviz
    "p(w, y) / q(w), w ~ q": r"p(w, y) / q(w),\; w \sim q",
    "p(y_i | y_-i) = sum_s w_is p_s(y_i)": r"p(y_i \mid y_{-i}) = \sum_s w_{is} p_s(y_i)",
    "u_i = P(y <= y_i | y without i) = sum_s w_is F_s(y_i)": (
        r"u_i = P(y \le y_i \mid y_{-i}) = \sum_s w_{is} F_s(y_i)"
    ),
}
